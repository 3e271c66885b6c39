"""The operators of a model that can be timed alone, and TFLite files that hold one of them."""

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
    """One convolution, depthwise convolution or dense layer, as a runtime computes it.

    Example:
        ```python
        Operator("conv", source=(32, 32), target=(32, 32), inputs=3, outputs=16, window=(3, 3))
        ```

    Attributes:
        kind: the type of the operator.
        source: height and width of the input in pixels; for a dense layer, (rows, 1).
        target: height and width of the output in pixels.
        inputs: channels of the input.
        outputs: channels of the output.
        window: height and width of the kernel.
        strides: steps of the window, in pixels.
        dilation: distance between the entries of the window, in pixels.
        same: whether the borders are padded; if not, the window stays within the image.
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
class OperatorCall:
    """One call of an operator in a model, and the axes of its kernel that hold channels.

    Attributes:
        operator: the operator with its present channels.
        kernel: the weight.
        input_axis: the axis of the kernel with the input channels.
        output_axis: the axis with the output channels; `input_axis` for a depthwise kernel.
    """

    operator: Operator
    kernel: keras.Variable
    input_axis: int
    output_axis: int


def operator_calls(model: keras.Model) -> list[OperatorCall]:
    """Every call of an operator that can be timed alone, including those in nested models.

    Example:
        ```python
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        [call.operator.kind for call in operator_calls(model)]  # ["conv"]
        ```

    The layer table defines these operators. Grouped, transposed, recurrent and three-dimensional
    kernels are left out. So are layers with channels first, which TFLite transposes.

    Args:
        model: a functional or built Sequential Keras model.
    """
    operators: list[OperatorCall] = []
    for call in calls(model):
        if is_graph(call.operation):
            operators.extend(operator_calls(call.operation))
        elif kernel_types := LAYER_TABLE.of(call.operation):
            source, target = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
            first = getattr(call.operation, "data_format", None) == "channels_first"
            if not first and None not in source + target:
                operators.extend(_calls_of(call.operation, kernel_types, source, target))
    return operators


def _calls_of(
    layer: Any, kernel_types: Sequence[KernelType], source: Sequence[int], target: Sequence[int]
) -> Iterator[OperatorCall]:
    read = source
    for kernel_type in kernel_types:
        if kernel_type.operator is None:
            continue
        kernel = kernel_of(layer, kernel_type)
        last = len(kernel.shape) - 1
        if kernel_type.operator == "dense":
            rows = (math.prod(source[:-1]), 1)
            operator = Operator("dense", rows, rows, source[-1], target[-1])
            yield OperatorCall(operator, kernel, last - 1, last)
        elif kernel_type.operator == "depthwise":
            made = source[-1] * layer.depth_multiplier
            operator = _convolution("depthwise", layer, read, (*target[:-1], made))
            yield OperatorCall(operator, kernel, last - 1, last - 1)
            # In a separable convolution, the next kernel reads the output of this one.
            read = (*target[:-1], made)
        elif read is not source:
            size = _plane(target[:-1])
            operator = Operator("conv", size, size, read[-1], target[-1])
            yield OperatorCall(operator, kernel, last - 1, last)
        elif layer.groups == 1:
            yield OperatorCall(_convolution("conv", layer, read, target), kernel, last - 1, last)
        elif layer.groups == source[-1] == target[-1]:
            yield OperatorCall(_convolution("depthwise", layer, read, target), kernel, last, last)


def _convolution(
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
    """Height and width; the height of one-dimensional data is 1."""
    height, width = (1, *sizes)[-2:]
    return height, width


# The scale of int8 values has no effect on the time.
_SCALE = 0.05
_FILE_VERSION = 3


def operator_file(operator: Operator, *, int8: bool = False, random: bool = False) -> bytes:
    """The content of a `.tflite` file that holds one operator with a bias and a fused ReLU.

    Example:
        ```python
        content = operator_file(Operator("dense", (1, 1), (1, 1), inputs=8, outputs=4))
        Interpreter(model_content=content)  # of ai_edge_litert
        ```

    Args:
        operator: the operator; the file takes one image, channels last.
        int8: whether weights and activations are int8, with one scale for each filter of a
            convolution; float32 otherwise.
        random: whether the int8 weights are drawn like those of a trained layer, for a compiler
            that compresses them; ones otherwise.
    """
    graph = schema.SubGraphT()
    graph.tensors = []
    model = schema.ModelT()
    model.version = _FILE_VERSION
    model.subgraphs = [graph]
    # In TFLite files, the first buffer means "no data".
    model.buffers = [schema.BufferT()]
    writer = _Writer(model, graph, int8, random)
    source_shape, kernel_shape, target_shape, filter_axis = _shapes(operator)
    source = writer.tensor("source", source_shape)
    kernel = writer.weights("kernel", kernel_shape, filter_axis)
    bias = writer.bias("bias", operator.outputs, 1 if filter_axis is None else operator.outputs)
    target = writer.tensor("target", target_shape)

    node = schema.OperatorT()
    code, node.builtinOptionsType, node.builtinOptions = _options(operator)
    node.inputs, node.outputs = [source, kernel, bias], [target]
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
    # The first versions that support int8 with one scale for each filter.
    operator_code.version = (4 if operator.kind == "dense" else 3) if int8 else 1
    graph.inputs, graph.outputs, graph.operators = [source], [target], [node]
    model.operatorCodes = [operator_code]
    builder = flatbuffers.Builder(1 << 10)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _shapes(
    operator: Operator,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int | None]:
    """The shapes of the input, the kernel and the output, and the filter axis of the kernel."""
    inputs, outputs = operator.inputs, operator.outputs
    if operator.kind == "dense":
        rows = operator.source[0]
        return (rows, inputs), (outputs, inputs), (rows, outputs), None
    source, target = (1, *operator.source, inputs), (1, *operator.target, outputs)
    if operator.kind == "depthwise":
        return source, (1, *operator.window, outputs), target, 3
    return source, (outputs, *operator.window, inputs), target, 0


def _options(operator: Operator) -> tuple[int, int, Any]:
    """The code of the operator, the type of its options, and the options."""
    options: Any
    if operator.kind == "dense":
        options = schema.FullyConnectedOptionsT()
        codes = (
            schema.BuiltinOperator.FULLY_CONNECTED,
            schema.BuiltinOptions.FullyConnectedOptions,
        )
    elif operator.kind == "depthwise":
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = operator.outputs // operator.inputs
        codes = (
            schema.BuiltinOperator.DEPTHWISE_CONV_2D,
            schema.BuiltinOptions.DepthwiseConv2DOptions,
        )
    else:
        options = schema.Conv2DOptionsT()
        codes = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOptions.Conv2DOptions)
    if operator.kind != "dense":
        options.padding = schema.Padding.SAME if operator.same else schema.Padding.VALID
        options.strideH, options.strideW = operator.strides
        options.dilationHFactor, options.dilationWFactor = operator.dilation
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return *codes, options


class _Writer:
    """Adds tensors to the graph of a file; each method returns the index of its tensor."""

    def __init__(self, model: Any, graph: Any, int8: bool, random: bool) -> None:
        self._model, self._graph = model, graph
        self._int8, self._random = int8, random

    def tensor(self, name: str, shape: tuple[int, ...]) -> int:
        kind = schema.TensorType.INT8 if self._int8 else schema.TensorType.FLOAT32
        return self._add(name, shape, kind, None, [_SCALE] if self._int8 else [])

    def weights(self, name: str, shape: tuple[int, ...], filter_axis: int | None) -> int:
        if not self._int8:
            values = np.ones(shape, np.float32)
            return self._add(name, shape, schema.TensorType.FLOAT32, values)
        values = np.ones(shape, np.int8)
        if self._random:
            drawn = np.random.default_rng(0).normal(size=shape)
            values = np.round(127 * drawn / np.abs(drawn).max()).astype(np.int8)
        scales = [_SCALE] * (1 if filter_axis is None else shape[filter_axis])
        return self._add(name, shape, schema.TensorType.INT8, values, scales, filter_axis or 0)

    def bias(self, name: str, size: int, scales: int) -> int:
        if not self._int8:
            values = np.zeros(size, np.float32)
            return self._add(name, (size,), schema.TensorType.FLOAT32, values)
        # The scale of a bias is the product of the scales of the input and of the kernel.
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
