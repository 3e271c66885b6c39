"""What XNNPACK's sparse kernels want of a file, and the converter leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.formats.tflite_file import packed, unpacked_code

_CODES = schema.BuiltinOperator
_COLOURS = 3


def for_sparse_kernels(content: bytes) -> bytes:
    """The same file, in which XNNPACK finds where its sparse kernels may begin and end.

    XNNPACK runs a strided convolution sparse only where its file tells how many zeros are on each
    side. `SAME` does not tell that. A model may have layers that add the zeros, but the converter
    makes `SAME` of them where it means the same zeros, as it does for images of odd size. And it
    ends sparse kernels in a pooling only, which the converter leaves out over images of one pixel.

    Args:
        content: A valid `.tflite` file.

    Returns:
        A file with the same outputs, and with operators that add these zeros and pool these pixels;
        the same content where nothing is to be added. Zeros are added before convolutions in
        float32 with strides 2 on images of odd size: 3x3 on three channels, and depthwise ones of
        3x3 or 5x5.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    found = False
    for graph in model.subgraphs:
        makers = {int(out): each for each in graph.operators for out in each.outputs}
        operators: list[Any] = []
        for operator in graph.operators:
            if size := _symmetric(model, graph, operator):
                operators.append(_zeros_before(model, graph, operator, size // 2))
            elif _leaves_pixel(model, graph, operator, makers):
                operators.append(_pooling_before(model, graph, operator))
            operators.append(operator)
        found = found or len(operators) > len(graph.operators)
        graph.operators = operators
    if not found:
        return content
    return packed(model)


def _leaves_pixel(model: Any, graph: Any, operator: Any, makers: dict[int, Any]) -> bool:
    """Whether an operator makes a list of numbers of a pixel that no pooling has made."""
    if unpacked_code(model, operator) not in (_CODES.RESHAPE, _CODES.FULLY_CONNECTED):
        return False
    place = int(operator.inputs[0])
    image = graph.tensors[place]
    if image.type != schema.TensorType.FLOAT32 or place not in makers or not _is_pixel(image):
        return False
    while place in makers and _is_pixel(graph.tensors[place]):
        if unpacked_code(model, makers[place]) == _CODES.MEAN:
            return False
        place = int(makers[place].inputs[0])
    # Otherwise the pixel is an input.
    return place in makers


def _is_pixel(tensor: Any) -> bool:
    shape = [] if tensor.shape is None else list(tensor.shape)
    return len(shape) == 4 and list(shape[1:3]) == [1, 1]


def _pooling_before(model: Any, graph: Any, operator: Any) -> Any:
    """An operator that averages over the one pixel that the operator reads."""
    image = graph.tensors[operator.inputs[0]]
    name = image.name.decode(errors="replace")
    axes = _constant(model, graph, f"{name}/axes", np.array([1, 2], np.int32))
    pooled = _tensor(graph, f"{name}/pooled", image.shape, image.type)
    graph.tensors[pooled].shapeSignature = image.shapeSignature
    options = schema.ReducerOptionsT()
    options.keepDims = True
    made = _operator(model, _CODES.MEAN, [operator.inputs[0], axes], pooled, options)
    operator.inputs = np.array([pooled, *operator.inputs[1:]], np.int32)
    return made


def _symmetric(model: Any, graph: Any, operator: Any) -> int:
    """The size of a kernel whose `SAME` is the same on all sides; 0 of another operator."""
    number = unpacked_code(model, operator)
    if number not in (_CODES.CONV_2D, _CODES.DEPTHWISE_CONV_2D):
        return 0
    options = operator.builtinOptions
    image, kernel = (graph.tensors[place] for place in operator.inputs[:2])
    shape, (_, rows, columns, _) = [int(side) for side in image.shape], kernel.shape
    wanted = (3, 5) if number == _CODES.DEPTHWISE_CONV_2D else (3,)
    strided = options.padding == schema.Padding.SAME and options.strideH == options.strideW == 2
    odd = len(shape) == 4 and shape[1] % 2 == shape[2] % 2 == 1
    in_float = image.type == schema.TensorType.FLOAT32
    first = number == _CODES.DEPTHWISE_CONV_2D or shape[-1] == _COLOURS
    fits = rows == columns and rows in wanted
    return int(rows) if strided and odd and in_float and first and fits else 0


def _zeros_before(model: Any, graph: Any, operator: Any, count: int) -> Any:
    """An operator that adds zeros on all sides of the image, which the operator then reads."""
    image = graph.tensors[operator.inputs[0]]
    sides = np.array([[0, 0], [count, count], [count, count], [0, 0]], np.int32)
    name = image.name.decode(errors="replace")
    counts = _constant(model, graph, f"{name}/sides", sides)
    added = sides.sum(axis=1)
    padded = _tensor(graph, f"{name}/padded", np.array(image.shape) + added, image.type)
    if image.shapeSignature is not None and len(image.shapeSignature):
        # An open batch stays open.
        graph.tensors[padded].shapeSignature = np.array(image.shapeSignature) + added
    options = schema.PadOptionsT()
    made = _operator(model, _CODES.PAD, [operator.inputs[0], counts], padded, options)
    operator.inputs = np.array([padded, *operator.inputs[1:]], np.int32)
    operator.builtinOptions.padding = schema.Padding.VALID
    return made


def _operator(model: Any, number: int, inputs: list[int], output: int, options: Any) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = _code(model, number)
    made.inputs, made.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    kind = type(options).__name__.removesuffix("T")
    made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    made.builtinOptions = options
    return made


def _constant(model: Any, graph: Any, name: str, values: np.ndarray) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    place = _tensor(graph, name, values.shape, schema.TensorType.INT32)
    graph.tensors[place].buffer = len(model.buffers) - 1
    return place


def _tensor(graph: Any, name: str, shape: Any, kind: int) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), np.array(shape, np.int32), kind
    # The first buffer is the one without content.
    tensor.buffer, tensor.hasRank = 0, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code(model: Any, number: int) -> int:
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
