"""The operators that a device spends its time in, as they are and with fewer channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import layers

from tfprune.model.graph import Call, calls, is_graph
from tfprune.model.type_table import TypeTable

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

    Grouped, transposed, recurrent and three-dimensional kernels are left out, and those with
    channels first, which TFLite transposes.

    Args:
        model: a functional or built Sequential Keras model.
    """
    found: list[Use] = []
    for call in calls(model):
        if is_graph(call.operation):
            found.extend(uses(call.operation))
        elif rule := _RULES.of(call.operation):
            shapes = (call.inputs[0].shape[1:], call.outputs[0].shape[1:])
            if None not in shapes[0] + shapes[1]:
                found.extend(rule(call, *shapes))
    return found


def _plane(sizes: Sequence[int]) -> Size:
    """Height and width; what has only a length is one pixel high."""
    height, width = (1, *sizes)[-2:]
    return height, width


def _geometry(layer: Any, source: Sequence[int], target: Sequence[int]) -> dict[str, Any]:
    def plane(value: Sequence[int]) -> Size:
        return _plane([*value])

    return {
        "source": _plane(source[:-1]),
        "target": _plane(target[:-1]),
        "window": plane(layer.kernel_size),
        "strides": plane(layer.strides),
        "dilation": plane(layer.dilation_rate),
        "same": layer.padding != "valid",
    }


def _conv(call: Call, source: Sequence[int], target: Sequence[int]) -> Iterator[Use]:
    layer: Any = call.operation
    if layer.data_format == "channels_first":
        return
    inputs, outputs = source[-1], target[-1]
    last = len(layer.kernel.shape) - 1
    geometry = _geometry(layer, source, target)
    if layer.groups == 1:
        operator = Operator("conv", inputs=inputs, outputs=outputs, **geometry)
        yield Use(operator, layer.kernel, last - 1, last)
    elif layer.groups == inputs == outputs:
        operator = Operator("depthwise", inputs=inputs, outputs=outputs, **geometry)
        yield Use(operator, layer.kernel, last, last)


def _depthwise(call: Call, source: Sequence[int], target: Sequence[int]) -> Iterator[Use]:
    layer: Any = call.operation
    if layer.data_format == "channels_first":
        return
    geometry = _geometry(layer, source, target)
    operator = Operator("depthwise", inputs=source[-1], outputs=target[-1], **geometry)
    yield Use(operator, layer.kernel, len(layer.kernel.shape) - 2, len(layer.kernel.shape) - 2)


def _separable(call: Call, source: Sequence[int], target: Sequence[int]) -> Iterator[Use]:
    layer: Any = call.operation
    if layer.data_format == "channels_first":
        return
    deep = source[-1] * layer.depth_multiplier
    geometry = _geometry(layer, source, target)
    kernel = layer.depthwise_kernel
    last = len(kernel.shape) - 1
    operator = Operator("depthwise", inputs=source[-1], outputs=deep, **geometry)
    yield Use(operator, kernel, last - 1, last - 1)
    size = _plane(target[:-1])
    operator = Operator("conv", source=size, target=size, inputs=deep, outputs=target[-1])
    yield Use(operator, layer.pointwise_kernel, last - 1, last)


def _dense(call: Call, source: Sequence[int], target: Sequence[int]) -> Iterator[Use]:
    layer: Any = call.operation
    rows = 1
    for size in source[:-1]:
        rows *= size
    operator = Operator("dense", (rows, 1), (rows, 1), source[-1], target[-1])
    yield Use(operator, layer.kernel, 0, 1)


_RULES: TypeTable[Any] = TypeTable(
    {
        layers.Conv1D: _conv,
        layers.Conv2D: _conv,
        layers.Dense: _dense,
        layers.DepthwiseConv1D: _depthwise,
        layers.DepthwiseConv2D: _depthwise,
        layers.SeparableConv1D: _separable,
        layers.SeparableConv2D: _separable,
    }
)
