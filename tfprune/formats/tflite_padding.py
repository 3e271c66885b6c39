"""Zeros around images as operators of their own, as XNNPACK's sparse kernels want them."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_CODES = schema.BuiltinOperator
_COLOURS = 3


def with_own_padding(content: bytes) -> bytes:
    """The same file, whose strided convolutions have operators before them that add their zeros.

    XNNPACK runs a strided convolution sparse only where its file tells how many zeros are on each
    side. `SAME` does not tell that. A model may have layers that add the zeros, but the converter
    makes `SAME` of them where it means the same zeros, as it does for images of odd size.

    Args:
        content: A valid `.tflite` file.

    Returns:
        A file with the same outputs; the same content where no such convolution is in it: 3x3 on
        three channels, or depthwise of 3x3 or 5x5, in float32, with strides 2 on images of odd
        size.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    found = False
    for graph in model.subgraphs:
        operators: list[Any] = []
        for operator in graph.operators:
            if size := _symmetric(model, graph, operator):
                found = True
                operators.append(_zeros_before(model, graph, operator, size // 2))
            operators.append(operator)
        graph.operators = operators
    if not found:
        return content
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _symmetric(model: Any, graph: Any, operator: Any) -> int:
    """The size of a kernel whose `SAME` is the same on all sides; 0 of another operator."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
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
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(sides.tobytes(), np.uint8)
    model.buffers.append(buffer)
    name = image.name.decode(errors="replace")
    counts = _tensor(graph, f"{name}/sides", sides.shape, schema.TensorType.INT32)
    graph.tensors[counts].buffer = len(model.buffers) - 1
    added = sides.sum(axis=1)
    padded = _tensor(graph, f"{name}/padded", np.array(image.shape) + added, image.type)
    if image.shapeSignature is not None and len(image.shapeSignature):
        # An open batch stays open.
        graph.tensors[padded].shapeSignature = np.array(image.shapeSignature) + added
    made = schema.OperatorT()
    made.opcodeIndex = _pad_code(model)
    made.inputs = np.array([operator.inputs[0], counts], np.int32)
    made.outputs = np.array([padded], np.int32)
    made.builtinOptionsType = schema.BuiltinOptions.PadOptions
    made.builtinOptions = schema.PadOptionsT()
    operator.inputs = np.array([padded, *operator.inputs[1:]], np.int32)
    operator.builtinOptions.padding = schema.Padding.VALID
    return made


def _tensor(graph: Any, name: str, shape: Any, kind: int) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), np.array(shape, np.int32), kind
    # The first buffer is the one without content.
    tensor.buffer, tensor.hasRank = 0, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _pad_code(model: Any) -> int:
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == _CODES.PAD:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _CODES.PAD
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
