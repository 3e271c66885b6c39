"""The operators that a device spends its time in, as they are and with fewer channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flatbuffers
import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.model.graph import calls, is_graph
from tfprune.model.layer_table import LAYER_TABLE, KernelType, kernel_of

Size = tuple[int, int]


@dataclass(frozen=True)
class Operator:
    """One convolution, depthwise convolution or dense layer, as a runtime sees it.

    Attributes:
        kind: which of the three.
        source: height and width of what it reads; of a dense layer the rows, and 1.
        target: height and width of what it gives out.
        inputs: channels that it reads.
        outputs: channels that it gives out.
        window: height and width of the kernel.
        strides: steps of the window, in pixels.
        dilation: distance of the window's entries, in pixels.
        same: whether borders are padded; if not, the window stays within the image.
    """

    kind: Literal["conv", "depthwise", "dense"]
    source: Size
    target: Size
    inputs: int
    outputs: int
    window: Size = (1, 1)
    strides: Size = (1, 1)
    dilation: Size = (1, 1)
    same: bool = True


@dataclass(frozen=True, eq=False)
class Use:
    """One call of an operator, and the weight axes that count its channels.

    Attributes:
        operator: with the channels that it has now.
        kernel: the weight.
        reads: the axis of the kernel that counts the channels read.
        makes: the axis that counts those given out; of a depthwise kernel it is `reads`.
    """

    operator: Operator
    kernel: keras.Variable
    reads: int
    makes: int


def uses(model: keras.Model) -> list[Use]:
    """Every use of a kernel whose operator can be timed alone, nested models included.

    The layer table tells which these are. Grouped, transposed, recurrent and three-dimensional
    kernels are left out, and those with channels first, which TFLite transposes.

    Args:
        model: a functional or built Sequential Keras model.
    """
    found: list[Use] = []
    for call in calls(model):
        if is_graph(call.operation):
            found.extend(uses(call.operation))
        elif kernel_types := LAYER_TABLE.of(call.operation):
            source, target = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
            first = getattr(call.operation, "data_format", None) == "channels_first"
            if not first and None not in source + target:
                found.extend(_uses_of(call.operation, kernel_types, source, target))
    return found


def _uses_of(
    layer: Any, kernel_types: Sequence[KernelType], source: Sequence[int], target: Sequence[int]
) -> Iterator[Use]:
    read = source
    for kernel_type in kernel_types:
        if kernel_type.operator is None:
            continue
        kernel = kernel_of(layer, kernel_type)
        last = len(kernel.shape) - 1
        if kernel_type.operator == "dense":
            rows = (math.prod(source[:-1]), 1)
            operator = Operator("dense", rows, rows, source[-1], target[-1])
            yield Use(operator, kernel, last - 1, last)
        elif kernel_type.operator == "depthwise":
            made = source[-1] * layer.depth_multiplier
            operator = _windowed("depthwise", layer, read, (*target[:-1], made))
            yield Use(operator, kernel, last - 1, last - 1)
            # What comes next reads what this one makes, as in a separable convolution.
            read = (*target[:-1], made)
        elif read is not source:
            size = _plane(target[:-1])
            operator = Operator("conv", size, size, read[-1], target[-1])
            yield Use(operator, kernel, last - 1, last)
        elif layer.groups == 1:
            yield Use(_windowed("conv", layer, read, target), kernel, last - 1, last)
        elif layer.groups == source[-1] == target[-1]:
            yield Use(_windowed("depthwise", layer, read, target), kernel, last, last)


def _windowed(
    kind: Literal["conv", "depthwise"], layer: Any, source: Sequence[int], target: Sequence[int]
) -> Operator:
    return Operator(
        kind,
        source=_plane(source[:-1]),
        target=_plane(target[:-1]),
        inputs=source[-1],
        outputs=target[-1],
        window=_plane(layer.kernel_size),
        strides=_plane(layer.strides),
        dilation=_plane(layer.dilation_rate),
        same=layer.padding != "valid",
    )


def _plane(sizes: Sequence[int]) -> Size:
    """Height and width; what has only a length is one pixel high."""
    height, width = (1, *sizes)[-2:]
    return height, width


# Any scale will do: it decides what the numbers mean, not how they are computed.
_SCALE = 0.05
_FILE_VERSION = 3


def single(operator: Operator, *, int8: bool = False) -> bytes:
    """The content of a `.tflite` file that holds one operator with a bias and a fused ReLU.

    Args:
        operator: which; one image, channels last.
        int8: weights and activations are int8, with a scale for every filter of a convolution;
            float32 if not.
    """
    graph = schema.SubGraphT()
    graph.tensors = []
    model = schema.ModelT()
    model.version = _FILE_VERSION
    model.subgraphs = [graph]
    # The first buffer stands for "no data".
    model.buffers = [schema.BufferT()]
    writer = _Writer(model, graph, int8)
    source, kernel, target, filter_axis = _shapes(operator)
    reads = writer.tensor("source", source)
    weights = writer.weights("kernel", kernel, filter_axis)
    bias = writer.bias("bias", operator.outputs, 1 if filter_axis is None else operator.outputs)
    gives = writer.tensor("target", target)

    node = schema.OperatorT()
    code, node.builtinOptionsType, node.builtinOptions = _options(operator)
    node.inputs, node.outputs = [reads, weights, bias], [gives]
    named = schema.OperatorCodeT()
    named.builtinCode = named.deprecatedBuiltinCode = code
    # Versions that know int8 with a scale for every filter.
    named.version = (4 if operator.kind == "dense" else 3) if int8 else 1
    graph.inputs, graph.outputs, graph.operators = [reads], [gives], [node]
    model.operatorCodes = [named]
    builder = flatbuffers.Builder(1 << 10)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _shapes(
    operator: Operator,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int | None]:
    """Of what is read, the kernel and what is given out; and the kernel's axis of filters."""
    inputs, outputs = operator.inputs, operator.outputs
    if operator.kind == "dense":
        rows = operator.source[0]
        return (rows, inputs), (outputs, inputs), (rows, outputs), None
    source, target = (1, *operator.source, inputs), (1, *operator.target, outputs)
    if operator.kind == "depthwise":
        return source, (1, *operator.window, outputs), target, 3
    return source, (outputs, *operator.window, inputs), target, 0


def _options(operator: Operator) -> tuple[int, int, Any]:
    """The operator's code, and its settings with their type."""
    options: Any
    if operator.kind == "dense":
        options = schema.FullyConnectedOptionsT()
        found = (
            schema.BuiltinOperator.FULLY_CONNECTED,
            schema.BuiltinOptions.FullyConnectedOptions,
        )
    elif operator.kind == "depthwise":
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = operator.outputs // operator.inputs
        found = (
            schema.BuiltinOperator.DEPTHWISE_CONV_2D,
            schema.BuiltinOptions.DepthwiseConv2DOptions,
        )
    else:
        options = schema.Conv2DOptionsT()
        found = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOptions.Conv2DOptions)
    if operator.kind != "dense":
        options.padding = schema.Padding.SAME if operator.same else schema.Padding.VALID
        options.strideH, options.strideW = operator.strides
        options.dilationHFactor, options.dilationWFactor = operator.dilation
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return *found, options


class _Writer:
    """Adds tensors to a graph."""

    def __init__(self, model: Any, graph: Any, int8: bool) -> None:
        self._model, self._graph, self._int8 = model, graph, int8

    def tensor(self, name: str, shape: tuple[int, ...]) -> int:
        kind = schema.TensorType.INT8 if self._int8 else schema.TensorType.FLOAT32
        return self._add(name, shape, kind, None, [_SCALE] if self._int8 else [])

    def weights(self, name: str, shape: tuple[int, ...], filter_axis: int | None) -> int:
        if not self._int8:
            values = np.ones(shape, np.float32)
            return self._add(name, shape, schema.TensorType.FLOAT32, values)
        values = np.ones(shape, np.int8)
        scales = [_SCALE] * (1 if filter_axis is None else shape[filter_axis])
        return self._add(name, shape, schema.TensorType.INT8, values, scales, filter_axis or 0)

    def bias(self, name: str, size: int, scales: int) -> int:
        if not self._int8:
            values = np.zeros(size, np.float32)
            return self._add(name, (size,), schema.TensorType.FLOAT32, values)
        # The scale of a bias is the product of those of what is read and of the kernel.
        products = [_SCALE * _SCALE] * scales
        return self._add(name, (size,), schema.TensorType.INT32, np.zeros(size, np.int32), products)

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        values: np.ndarray | None,
        scales: list[float] | None = None,
        axis: int = 0,
    ) -> int:
        buffer = schema.BufferT()
        if values is not None:
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        tensor.buffer = len(self._model.buffers) - 1
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = [0] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1
