"""Layers that rearrange the numbers of an example without changing them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from keras import layers
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import channel_axis
from tfprune.filters.rules.registry import channel_rule


@channel_rule(layers.Flatten)
def flatten(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Keras puts channel `i % C` at position `i`, whatever the data format."""
    shape = tuple(trace.call.outputs[0].shape)
    if x.axis is None:
        return trace.opaque(shape)
    if shape[1] is None:
        trace.freeze(x, f"{layer.name} flattens a tensor of open size")
        return trace.opaque(shape)
    held = _held(x)
    if channel_axis(layer, len(x.shape)) == 1:
        held = np.moveaxis(held, 0, -1)
    held = held.reshape(-1)
    return Channels(shape, 1, x.ids[held], x.constant[held])


@channel_rule(layers.Permute)
def permute(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The channel axis moves with its channels."""
    if x.axis is None:
        return trace.passed(x)
    return trace.passed(x, axis=layer.dims.index(x.axis) + 1)


@channel_rule(layers.RepeatVector)
def repeat_vector(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The same channels at each of `n` steps."""
    return trace.passed(trace.along(x, 1), axis=2)


@channel_rule(layers.Reshape)
def reshape(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The size of the axis that carries the channels on is rewritten."""
    made = reshaped(trace, x)
    if made.axis is not None:
        trace.number("target_shape", made, made.axis - 1)
    return made


def reshaped(trace: Trace, x: Channels) -> Channels:
    """Channels after a reshape of each example in row-major order, to the current call's output.

    Where the channel axis is split, the channels at the same place of the axis that carries them
    on go together, so that what is left fills the smaller shape in the same order. Channels are
    frozen where no axis can carry them.
    """
    shape = tuple(trace.call.outputs[0].shape)
    if x.axis is None:
        return trace.opaque(shape)
    name = trace.call.operation.name
    if None in (*x.shape[1:], *shape[1:]):
        last = len(x.shape) - 1
        if x.axis == last and shape[-1] == x.shape[-1]:
            return trace.passed(x, axis=len(shape) - 1)
        trace.freeze(x, f"{name} reshapes a tensor of open size")
        return trace.opaque(shape)
    held = _held(x).reshape(cast(Any, shape[1:]))
    axis = _carrier(x, held)
    if axis is None:
        trace.freeze(x, f"{name} mixes them with other axes")
        return trace.opaque(shape)
    rows = _rows(held, axis)
    made = Channels(shape, axis, x.ids[rows[:, 0]], _shared(x.constant[rows]))
    for row in np.unique(x.ids[rows], axis=1).T:
        trace.unite(made, replace(made, ids=row))
    return made


def _held(x: Channels) -> np.ndarray:
    """Int, of the shape of an example: each number's place along the channel axis."""
    assert x.axis is not None
    sizes = [1] * (len(x.shape) - 1)
    sizes[x.axis - 1] = len(x)
    return np.broadcast_to(np.arange(len(x)).reshape(sizes), cast(Any, x.shape[1:]))


def _carrier(x: Channels, held: np.ndarray) -> int | None:
    """The axis that carries channels on: one that keeps all apart, else the last that can."""
    distinct, channel = np.unique(x.ids, return_inverse=True)
    last = None
    for axis in range(held.ndim, 0, -1):
        count = _classes(channel[_rows(held, axis)], len(distinct))
        if count == len(distinct):
            return axis
        if count > 1 and last is None:
            last = axis
    return last


def _rows(held: np.ndarray, axis: int) -> np.ndarray:
    """Int (shape[axis], m): what each place of an axis, batch counted, holds."""
    moved = np.moveaxis(held, axis - 1, 0)
    return moved.reshape(len(moved), -1)


def _classes(rows: np.ndarray, count: int) -> int:
    """How many of the channels 0..count-1 can still go one by one when each row goes as one."""
    pairs = np.unique(np.stack([np.repeat(rows[:, 0], rows.shape[1]), rows.reshape(-1)]), axis=1)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs)), shape=(count, count))
    return int(connected_components(graph, directed=False)[0])


def _shared(constants: np.ndarray) -> np.ndarray:
    """Float (n,): what all columns of `constants`, (n, m), agree on, else NaN."""
    return np.where((constants == constants[:, :1]).all(axis=1), constants[:, 0], np.nan)
