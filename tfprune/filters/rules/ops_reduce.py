"""Raw operations along axes: `ops.mean(x, axis=(1, 2))`, `ops.softmax(x)`, pooling, resizing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from keras.src.ops import image, math, nn
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import channel_axis
from tfprune.filters.rules.ops_common import (
    axes_of,
    only_zero,
    operations,
    stopped,
    unchanged,
    unknown_value,
)
from tfprune.filters.rules.registry import channel_rule
from tfprune.model.type_table import TypeTable

Constants = Callable[[np.ndarray], np.ndarray]

# What becomes of a channel that is constant over the axes that vanish.
_REDUCED: TypeTable[Constants] = TypeTable(
    {
        **dict.fromkeys(operations(knp, "Mean Max Min Amax Amin Median Nanmean Nanmax"), unchanged),
        **dict.fromkeys(operations(knp, "Nanmin Nanmedian"), unchanged),
        **dict.fromkeys(
            operations(knp, "Sum Nansum Prod Any All CountNonzero Std Var Ptp"), only_zero
        ),
        **dict.fromkeys(operations(knp, "Argmax Argmin"), unknown_value),
        **dict.fromkeys(operations(math, "Logsumexp"), unknown_value),
    }
)
# The same where the axes stay.
_SWEPT: TypeTable[Constants] = TypeTable(
    {
        **dict.fromkeys(operations(knp, "Sort Roll"), unchanged),
        **dict.fromkeys(operations(knp, "Cumsum Nancumsum Cumprod Nancumprod"), only_zero),
        **dict.fromkeys(operations(knp, "Argsort"), unknown_value),
    }
)
_SHARED = operations(nn, "Softmax LogSoftmax Sparsemax Normalize")
_POOLED: TypeTable[Constants] = TypeTable(
    dict.fromkeys(
        operations(nn, "MaxPool AveragePool AdaptiveMaxPool AdaptiveAveragePool"), unchanged
    )
)


@channel_rule(*_REDUCED)
def reduced(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """One number is left of each channel, or of each of its rows."""
    if x.axis is None:
        return trace.passed(x)
    gone = axes_of(operation.axis, len(x.shape))
    if x.axis in gone:
        return stopped(trace, [x], f"is a {type(operation).__name__} over all channels")
    before = 0 if getattr(operation, "keepdims", False) else sum(each < x.axis for each in gone)
    found = replace(x, constant=_REDUCED[type(operation)](x.constant))
    return trace.passed(found, x.axis - before)


@channel_rule(*_SWEPT)
def swept(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Numbers move or add up along axes; only along other axes than the channels' is that fine."""
    if x.axis is None:
        return trace.passed(x)
    if x.axis in axes_of(operation.axis, len(x.shape)):
        return stopped(trace, [x], f"is a {type(operation).__name__} over all channels")
    return trace.passed(replace(x, constant=_SWEPT[type(operation)](x.constant)))


@channel_rule(*_SHARED)
def shared(trace: Trace, operation: Any, x: Channels) -> Channels:
    """Over the channels the share of each depends on all others, so that removal is inexact."""
    if x.axis is not None and x.axis in axes_of(operation.axis, len(x.shape)):
        trace.inexact(x, f"{type(operation).__name__.lower()} spreads over all channels")
    return trace.passed(x.varying())


@channel_rule(*_POOLED)
def pooled(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Each channel's map is pooled alone."""
    if x.axis not in (None, channel_axis(operation, len(x.shape))):
        return stopped(trace, [x], "pools over channels")
    return trace.passed(replace(x, constant=_POOLED[type(operation)](x.constant)))


@channel_rule(image.Resize)
def resized(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Each channel's map is resized alone; a constant map stays constant unless it is padded."""
    # Pictures may come without a batch axis, so axes count from the back.
    channels = -3 if operation.data_format == "channels_first" else -1
    if x.axis is not None and x.axis - len(x.shape) not in (channels, -4):
        return stopped(trace, [x], "resizes the axis of the channels")
    if operation.pad_to_aspect_ratio:
        kept = np.where(x.constant == operation.fill_value, x.constant, np.nan)
        x = replace(x, constant=kept)
    return trace.passed(x)
