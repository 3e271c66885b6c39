"""What a TFLite file needs of a microcontroller: its operators, and an estimate of its arena."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.errors import TfpruneError
from tfprune.formats.runtime import Memory
from tfprune.formats.tflite_file import DECODE, ITEM_BYTES, custom_code, operator_code

# TFLite Micro aligns every buffer so.
_ALIGNMENT = 16
# What its interpreter keeps of every tensor and operator where pointers have 64 bits, and of
# itself; a filter has a multiplier and a shift, in float models too. A 32-bit device needs less.
_BYTES_A_TENSOR = 24
_BYTES_AN_OPERATOR = 160
_BYTES_A_FILTER = 8
_BYTES_FIXED = 2048
# More than any microcontroller has; memory that is not written costs nothing here.
_MOST_ARENA_BYTES = 1 << 28
_FILTER_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}

# What `MicroMutableOpResolver` has an Add method for, by the method's name.
_LISTED = """
Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd
BroadcastArgs BroadcastTo CallOnce Cast Ceil Concatenation Conv2D Cos CumSum DepthToSpace
Decode DepthwiseConv2D Dequantize Div Elu EmbeddingLookup Equal Exp ExpandDims Fill Floor FloorDiv
FloorMod FullyConnected Gather GatherNd Greater GreaterEqual HardSwish If L2Normalization
L2Pool2D LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr Logistic
MaxPool2D Maximum Mean Minimum MirrorPad Mul Neg NotEqual Pack Pad PadV2 Prelu Quantize
ReadVariable ReduceMax Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor Round Rsqrt
SelectV2 Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth Split SplitV Sqrt Square
SquaredDifference Squeeze StridedSlice Sub Sum Svdf Tanh Transpose TransposeConv Unpack
VarHandle While ZerosLike
"""
_KERNELS = frozenset(_LISTED.split())
# Where the name of the method does not follow from that of the operator.
_ODD = {"PADV2": "PadV2", "CUMSUM": "CumSum", "BATCH_MATMUL": "BatchMatMul"}

# Kernels that take fewer types than TFLite's, by the type of their last input.
_TYPES = {"SELECT_V2": {"INT8", "INT16", "FLOAT32"}}
_TYPE_NAMES = {
    code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)
}
_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Memory of one activation.

    Attributes:
        size: Bytes.
        first: Number of the operator that writes it; -1 for the model's inputs.
        last: Number of the last operator that reads it.
    """

    size: int
    first: int
    last: int


def memory(content: bytes) -> Memory:
    """Operators of a TFLite file, and the tensor arena that TFLite Micro needs for one example.

    The arena is estimated: activations live from the operator that writes them to the last that
    reads them, and are placed greedily by size, as TFLite Micro's `GreedyMemoryPlanner` does (the
    largest first, each in the lowest gap that is free while it lives; Pisarchyk and Lee,
    arXiv:2001.03288). To that come 24 bytes a tensor, 160 an operator, 8 a filter and 2,048 for the
    interpreter, which is what it takes where pointers have 64 bits, rounded up. Scratch buffers of
    optimized kernels such as CMSIS-NN's are not in it: `MicroInterpreter::arena_used_bytes()` tells
    the figure on the device.

    Args:
        content: A valid `.tflite` file.

    Raises:
        TfpruneError: It uses an operator that TFLite Micro has no kernel for, has several
            subgraphs, or takes images of any size.
    """
    model = schema.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() != 1:
        raise TfpruneError(
            "TFLite Micro's arena cannot be planned for a model with several subgraphs: "
            "leave the C array out, or replace its control flow"
        )
    graph = model.Subgraphs(0)
    for i in graph.InputsAsNumpy():
        tensor = graph.Tensors(int(i))
        if tensor.ShapeSignatureLength() and -1 in tensor.ShapeSignatureAsNumpy()[1:]:
            raise TfpruneError(
                "TFLite Micro does not take inputs of any size: give an input_shape, or leave the "
                "C array out"
            )
    operators = list(dict.fromkeys(_operators(model, graph)))
    buffers = list(_activations(model, graph))
    ends = (
        offset + each.size for offset, each in zip(place_buffers(buffers), buffers, strict=True)
    )
    activations = max(ends, default=0)
    kept = (
        _BYTES_FIXED
        + _BYTES_A_TENSOR * graph.TensorsLength()
        + _BYTES_AN_OPERATOR * graph.OperatorsLength()
        + _BYTES_A_FILTER * sum(_filters(model, graph))
    )
    return Memory(
        arena_bytes=_aligned(activations + kept),
        activation_bytes=activations,
        operators=tuple(operators),
        resolver=tuple(f"resolver.Add{_method(name)}();" for name in operators),
    )


def interpreter(content: bytes, **options: Any) -> Any:
    """TFLite Micro's interpreter, in this process: call it in a sandbox, since it may abort.

    Args:
        content: A valid `.tflite` file.
        **options: Of its `Interpreter.from_bytes`.

    Raises:
        RuntimeError: It does not run the file.
        ValueError: Likewise.
    """
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_bytes(content, arena_size=_MOST_ARENA_BYTES, **options)


def any_input(
    dtype: Any, shape: Sequence[int], quantized: bool, rng: np.random.Generator
) -> np.ndarray:
    """Any integers of a quantized input; zeros for row numbers of a table; else pixels.

    Args:
        dtype: Of the input.
        shape: Of the input, with the batch.
        quantized: Whether its integers stand for real values.
        rng: Draws them.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu":
        return rng.uniform(0, 255, shape).astype(dtype)
    if not quantized:
        return np.zeros(shape, dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def place_buffers(buffers: Sequence[Buffer]) -> list[int]:
    """Where each buffer starts in memory that they share, placed greedily, the largest first.

    Of equal ones the last goes first, as in TFLite Micro: another order can give another peak.

    Args:
        buffers: In the order of their tensors.

    Returns:
        Their offsets in bytes, in the same order.
    """
    offsets: dict[int, int] = {}
    for place in sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, -i)):
        buffer, offset = buffers[place], 0
        for start, other in sorted((offsets[i], i) for i in offsets):
            if buffers[other].last < buffer.first or buffer.last < buffers[other].first:
                continue
            if offset + buffer.size <= start:
                break
            offset = max(offset, start + buffers[other].size)
        offsets[place] = offset
    return [offsets[i] for i in range(len(buffers))]


def _operators(model: Any, graph: Any) -> Iterator[str]:
    for i in range(graph.OperatorsLength()):
        name = _name(model, graph.Operators(i))
        if _method(name) not in _KERNELS:
            raise TfpruneError(
                f"TFLite Micro has no kernel for {name}: "
                "leave the C array out, or replace the layers that use it"
            )
        _check_types(graph, graph.Operators(i), name)
        yield name


def _check_types(graph: Any, operator: Any, name: str) -> None:
    """Refuses what a kernel finds out only when it runs."""
    if name in _TYPES:
        kind = _TYPE_NAMES[graph.Tensors(operator.Inputs(operator.InputsLength() - 1)).Type()]
        if kind not in _TYPES[name]:
            raise TfpruneError(
                f"TFLite Micro's kernel {name} does not take {kind}: leave the C array out, or "
                "replace the layers that use it (an Embedding does)"
            )


def _name(model: Any, operator: Any) -> str:
    if custom_code(model.OperatorCodes(operator.OpcodeIndex())) == DECODE:
        return "DECODE"
    number = operator_code(model, operator)
    return _NAMES.get(number, f"operator {number}")


def _method(name: str) -> str:
    words = "".join(part.capitalize() for part in name.split("_"))
    return _ODD.get(name) or words.replace("2d", "2D")


def _activations(model: Any, graph: Any) -> Iterator[Buffer]:
    count = graph.OperatorsLength()
    first = {int(i): -1 for i in graph.InputsAsNumpy()}
    last = {int(i): count for i in graph.OutputsAsNumpy()}
    for place in range(count):
        operator = graph.Operators(place)
        for i in operator.InputsAsNumpy():
            last[int(i)] = max(place, last.get(int(i), -1))
        for i in operator.OutputsAsNumpy():
            first.setdefault(int(i), place)
    for i, begun in sorted(first.items()):
        tensor = graph.Tensors(i)
        if model.Buffers(tensor.Buffer()).DataLength():
            continue
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else np.ones(1, int)
        size = int(np.prod(shape)) * ITEM_BYTES.get(tensor.Type(), 8)
        # An output that is not read still needs a place while it is written.
        yield Buffer(_aligned(size), begun, last.get(i, begun))


def _filters(model: Any, graph: Any) -> Iterator[int]:
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        axis = _FILTER_AXIS.get(_name(model, operator))
        if axis is not None:
            yield int(graph.Tensors(int(operator.Inputs(1))).Shape(axis))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
