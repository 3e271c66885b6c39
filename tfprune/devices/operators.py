"""The operators that a device spends its time in, as they are and with fewer channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

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
