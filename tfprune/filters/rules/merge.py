"""Layers that join tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import agreed
from tfprune.filters.rules.registry import channel_rule
from tfprune.model.type_table import TypeTable


def _product(values: np.ndarray) -> np.ndarray:
    # Zero times something that varies is still zero.
    return np.where((values == 0).any(axis=0), 0.0, values.prod(axis=0))


_COMBINED: TypeTable[Callable[[np.ndarray], np.ndarray]] = TypeTable(
    {
        layers.Add: lambda values: values.sum(axis=0),
        layers.Subtract: lambda values: values[0] - values[1],
        layers.Multiply: _product,
        layers.Average: lambda values: values.mean(axis=0),
        layers.Maximum: lambda values: values.max(axis=0),
        layers.Minimum: lambda values: values.min(axis=0),
    }
)


def _channel_axis(inputs: Sequence[Channels], shape: tuple[int | None, ...]) -> int | None:
    """The axis of the output, from the back, that some input carries ids along."""
    for channels in inputs:
        if channels.axis is not None:
            back = channels.axis - len(channels.shape)
            if channels.shape[channels.axis] == shape[back]:
                return back
    return None


def met(trace: Trace, combined: Callable[[np.ndarray], np.ndarray], *inputs: Channels) -> Channels:
    """Channels after an operation of several tensors, number by number, that broadcasts.

    Args:
        trace: what is recorded on.
        combined: from the constants of the inputs, float (inputs, channels), to the output's.
        *inputs: the channels of each tensor; those that meet go together.
    """
    shape = tuple(trace.call.outputs[0].shape)
    back = _channel_axis(inputs, shape)
    spread = f"{trace.call.operation.name} spreads it over all channels"
    if back is None:
        for channels in inputs:
            trace.freeze(channels, spread)
        return trace.opaque(shape)
    meeting: list[Channels] = []
    constants: list[np.ndarray] = []
    for channels in inputs:
        if len(channels.shape) < -back or channels.shape[back] != shape[back]:
            trace.freeze(channels, spread)
            constants.append(np.full(shape[back], np.nan))
        else:
            meeting.append(trace.along(channels, back))
            constants.append(meeting[-1].constant)
    for other in meeting[1:]:
        trace.unite(meeting[0], other)
    return Channels(shape, len(shape) + back, meeting[0].ids, combined(np.stack(constants)))


@channel_rule(*_COMBINED)
def elementwise(trace: Trace, layer: Any, *inputs: Channels) -> Channels:
    """Channels that meet go together; a size-1 axis that is spread over many stays."""
    return met(trace, _COMBINED[type(layer)], *inputs)


@channel_rule(layers.Concatenate)
def concatenate(trace: Trace, layer: Any, *inputs: Channels) -> Channels:
    """Along the channel axis ids are joined; along another one they meet."""
    shape = tuple(trace.call.outputs[0].shape)
    axis = layer.axis % len(shape)
    if all(channels.axis is None for channels in inputs):
        return trace.opaque(shape)
    carried = {channels.axis for channels in inputs if channels.axis is not None}
    if axis in carried:
        parts = [trace.along(channels, axis) for channels in inputs]
        return Channels(
            shape,
            axis,
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.constant for part in parts]),
        )
    along = carried.pop()
    meeting = [trace.along(channels, along) for channels in inputs]
    for other in meeting[1:]:
        trace.unite(meeting[0], other)
    constant = agreed(np.stack([each.constant for each in meeting]))
    return replace(meeting[0], shape=shape, constant=constant, linear=None)
