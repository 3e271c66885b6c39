"""What works along axes: means and sums, sorting, softmax, pooling, resizing, borders of zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras import layers
from keras.src.ops import image, math, nn
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules.arguments import axes_from_front, channel_axis, operations
from tfprune.filters.rules.registry import channel_rule, refuse
from tfprune.model.layer_table import TypeTable

# From channels whose map is constant to what is known of them afterwards.
Known = Callable[[Channels], Channels]


def _unchanged(x: Channels) -> Channels:
    return x


def _of_ranks(*names: str) -> list[type]:
    return operations(layers, " ".join(f"{name}{rank}D" for name in names for rank in (1, 2, 3)))


# -- reductions ---------------------------------------------------------------------------------

# What is known of a channel that is constant over the axes that vanish.
_REDUCED: TypeTable[Known] = TypeTable(
    {
        **dict.fromkeys(operations(knp, "Mean Median Max Min Amax Amin"), _unchanged),
        **dict.fromkeys(operations(knp, "Nanmean Nanmedian Nanmax Nanmin"), _unchanged),
        **dict.fromkeys(
            operations(knp, "Sum Nansum Prod Any All CountNonzero Std Var Ptp"), Channels.only
        ),
        **dict.fromkeys(operations(knp, "Argmax Argmin"), Channels.varying),
        **dict.fromkeys(operations(math, "Logsumexp"), Channels.varying),
    }
)
# The same where the axes stay.
_SWEPT: TypeTable[Known] = TypeTable(
    {
        **dict.fromkeys(operations(knp, "Sort Roll"), _unchanged),
        **dict.fromkeys(operations(knp, "Cumsum Nancumsum Cumprod Nancumprod"), Channels.only),
        **dict.fromkeys(operations(knp, "Argsort"), Channels.varying),
    }
)


def reduced(trace: Trace, x: Channels, axes: Iterable[int], keepdims: bool) -> Channels:
    """Channels after other axes than theirs have vanished, or shrunk to size one."""
    assert x.axis is not None
    before = 0 if keepdims else sum(axis < x.axis for axis in axes)
    return trace.passed(x, x.axis - before)


@channel_rule(*_of_ranks("GlobalMaxPooling", "GlobalAveragePooling"))
def global_pooling(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Leaves one number of each channel."""
    axis, rank = channel_axis(layer, len(x.shape)), len(x.shape)
    axes = [other for other in range(1, rank) if other != axis]
    return reduced(trace, trace.along(x, axis), axes, layer.keepdims)


@channel_rule(*_REDUCED)
def reduction(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Leaves one number of each channel, or of each of its rows."""
    if x.axis is None:
        return trace.passed(x)
    axes = axes_from_front(operation.axis, len(x.shape))
    if x.axis in axes:
        return refuse(trace, f"is a {type(operation).__name__} over all channels", x)
    known = _REDUCED[type(operation)](x)
    return reduced(trace, known, axes, getattr(operation, "keepdims", False))


@channel_rule(*_SWEPT)
def sweep(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Moves or adds up numbers along axes, which must not be that of the channels."""
    if x.axis is not None and x.axis in axes_from_front(operation.axis, len(x.shape)):
        return refuse(trace, f"is a {type(operation).__name__} over all channels", x)
    return trace.passed(_SWEPT[type(operation)](x))


def spread(trace: Trace, x: Channels, axes: Sequence[int], name: str) -> Channels:
    """Channels of which each depends on all others, where they lie along one of the axes."""
    if x.axis in axes:
        trace.inexact(x, f"{name} spreads over all channels")
    return x.varying()


@channel_rule(layers.Softmax, *operations(nn, "Softmax LogSoftmax Sparsemax Normalize"))
def softmax(trace: Trace, operation: Any, x: Channels, *masks: Channels) -> Channels:
    """Along the channels, each result depends on all others."""
    for mask in masks:
        trace.freeze(mask, f"{operation.name} takes it for a mask")
    axes = axes_from_front(operation.axis, len(x.shape))
    return trace.passed(spread(trace, x, axes, type(operation).__name__.lower()))


# -- maps ---------------------------------------------------------------------------------------


# Only a channel that is zero stays constant beside the zeros of a border; resizing changes any
# other constant by its rounding.
_RESAMPLED: TypeTable[Known] = TypeTable(
    {
        **dict.fromkeys(_of_ranks("MaxPooling", "AveragePooling"), _unchanged),
        **dict.fromkeys(_of_ranks("AdaptiveMaxPooling", "AdaptiveAveragePooling"), _unchanged),
        **dict.fromkeys(_of_ranks("Cropping", "UpSampling"), _unchanged),
        **dict.fromkeys(operations(nn, "MaxPool AveragePool"), _unchanged),
        **dict.fromkeys(operations(nn, "AdaptiveMaxPool AdaptiveAveragePool"), _unchanged),
        **dict.fromkeys(_of_ranks("ZeroPadding"), Channels.only),
        layers.CenterCrop: Channels.only,
        layers.Resizing: Channels.only,
    }
)


@channel_rule(*_RESAMPLED)
def resampled(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Pools, pads, crops or resizes each channel's map alone."""
    axis = channel_axis(operation, len(x.shape))
    if x.axis not in (None, axis):
        return refuse(trace, f"reads axis {axis} of a tensor whose channels lie elsewhere", x)
    known = _RESAMPLED[type(operation)]
    if getattr(operation, "pad_to_aspect_ratio", False) and operation.fill_value != 0:
        known = Channels.varying
    return trace.passed(known(x))


@channel_rule(image.Resize)
def resize(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Resizes each channel's map alone; a constant map stays constant unless it is padded."""
    # Pictures may come without a batch axis, so axes count from the back.
    channels = -3 if operation.data_format == "channels_first" else -1
    if x.axis is not None and x.axis - len(x.shape) not in (channels, -4):
        return refuse(trace, "resizes the axis of the channels", x)
    return trace.passed(x.only(operation.fill_value) if operation.pad_to_aspect_ratio else x)
