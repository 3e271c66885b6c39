"""What rearranges the numbers of an example: transposing, reshaping, flipping, repeating."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
from keras import layers
from keras.src.ops import numpy as knp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfprune.filters.channels import Channels, Trace, agreed
from tfprune.filters.rules.arguments import axes_from_front, channel_axis, operations, rewritable
from tfprune.filters.rules.registry import channel_rule, refuse
from tfprune.model.layer_table import TypeTable

Sizes = tuple[int | None, ...]

# -- order and number of axes -------------------------------------------------------------------


def _moved(operation: Any, rank: int) -> list[int]:
    order = [axis for axis in range(rank) if axis not in axes_from_front(operation.source, rank)]
    pairs = zip(operation.destination, operation.source, strict=True)
    for destination, source in sorted((to % rank, of % rank) for to, of in pairs):
        order.insert(destination, source)
    return order


def _swapped(operation: Any, rank: int) -> list[int]:
    order = list(range(rank))
    one, other = operation.axis1 % rank, operation.axis2 % rank
    order[one], order[other] = order[other], order[one]
    return order


def _transposed(operation: Any, rank: int) -> list[int]:
    axes = range(rank)[::-1] if operation.axes is None else operation.axes
    return [axis % rank for axis in axes]


# Which axis of the input is found at each place of the output.
_ORDER: TypeTable[Callable[[Any, int], list[int]]] = TypeTable(
    {
        layers.Permute: lambda layer, rank: [0, *layer.dims],
        knp.Moveaxis: _moved,
        knp.Swapaxes: _swapped,
        knp.Transpose: _transposed,
    }
)


@channel_rule(*_ORDER)
def permute(trace: Trace, operation: Any, x: Channels) -> Channels:
    """The channel axis goes where it is put."""
    if x.axis is None:
        return trace.passed(x)
    return trace.passed(x, axis=_ORDER[type(operation)](operation, len(x.shape)).index(x.axis))


@channel_rule(knp.ExpandDims)
def expand_dims(trace: Trace, operation: Any, x: Channels) -> Channels:
    """New axes of size one push the channel axis back."""
    if x.axis is None:
        return trace.passed(x)
    rank = len(trace.call.outputs[0].shape)
    new = axes_from_front(operation.axis, rank)
    return trace.passed(x, axis=[axis for axis in range(rank) if axis not in new][x.axis])


@channel_rule(knp.Squeeze)
def squeeze(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Named axes of size one go."""
    if x.axis is None:
        return trace.passed(x)
    if operation.axis is None:
        return refuse(trace, "names no axis, and would drop the channels if one were left", x)
    gone = axes_from_front(operation.axis, len(x.shape))
    if x.axis in gone:
        return refuse(trace, "drops the axis of the channels", x)
    return trace.passed(x, axis=x.axis - sum(axis < x.axis for axis in gone))


# -- order and number of channels ---------------------------------------------------------------


@channel_rule(knp.Flip)
def flip(trace: Trace, operation: Any, x: Channels) -> Channels:
    """Over the channels their order turns round."""
    if x.axis is not None and x.axis in axes_from_front(operation.axis, len(x.shape)):
        x = x.taken(np.arange(len(x))[::-1])
    return trace.passed(x)


@channel_rule(knp.Repeat)
def repeat(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Each channel, or each of its rows, comes several times."""
    if x.axis is None:
        return trace.passed(x)
    if operation.axis is None:
        return refuse(trace, "flattens it", x)
    if operation.axis % len(x.shape) == x.axis:
        times = np.ravel(operation.repeats)
        if len(times) > 1:
            return refuse(trace, "repeats each channel another number of times", x)
        x = x.taken(np.repeat(np.arange(len(x)), times[0]))
    return trace.passed(x)


@channel_rule(layers.RepeatVector)
def repeat_vector(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The same channels at each of `n` steps."""
    return trace.passed(trace.along(x, 1), axis=2)


@channel_rule(knp.Tile)
def tile(trace: Trace, operation: Any, x: Channels) -> Channels:
    """All channels, or all of their rows, come several times."""
    shape = tuple(trace.call.outputs[0].shape)
    if x.axis is None:
        return trace.passed(x)
    back = x.axis - len(x.shape)
    times = [1] * len(shape) + list(np.ravel(operation.repeats))
    return trace.passed(x.taken(np.tile(np.arange(len(x)), times[back])), len(shape) + back)


@channel_rule(*operations(knp, "BroadcastTo"))
def broadcast_to(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Other axes are spread; the wanted shape counts the channels."""
    if x.axis is None:
        return trace.passed(x)
    shape = tuple(trace.call.outputs[0].shape)
    axis = x.axis - len(x.shape) + len(shape)
    if shape[axis] != len(x) or not rewritable(trace):
        return refuse(trace, "spreads it over all channels", x)
    spread = replace(x, shape=shape, axis=axis, linear=None)
    trace.number("shape", spread, axis)
    return spread


# -- reshaping ----------------------------------------------------------------------------------


@channel_rule(layers.Flatten)
def flatten(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Keras puts channel `i % C` at position `i`, whatever the data format."""
    shape = tuple(trace.call.outputs[0].shape)
    if x.axis is None:
        return trace.opaque(shape)
    if shape[1] is None:
        trace.freeze(x, f"{layer.name} flattens a tensor of open size")
        return trace.opaque(shape)
    places = _places(x)
    if channel_axis(layer, len(x.shape)) == 1:
        places = np.moveaxis(places, 0, -1)
    places = places.reshape(-1)
    return Channels(shape, 1, x.ids[places], x.constant[places])


@channel_rule(layers.Reshape)
def reshape_layer(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The size of the axis that carries the channels on is rewritten."""
    made = reshaped(trace, x)
    if made.axis is not None:
        trace.number("target_shape", made, made.axis - 1)
    return made


@channel_rule(knp.Reshape)
def reshape(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """The same as a raw operation, whose wanted shape includes the batch.

    Left as it is, `reshape(x, (-1, 36, 8))` would put numbers of several examples together once
    six channels are left, so what cannot be rewritten is frozen.
    """
    if x.axis is not None and not rewritable(trace):
        return refuse(trace, "counts channels, at several calls", x)
    made = reshaped(trace, x)
    if made.axis is not None:
        trace.number("newshape", made, made.axis)
    return made


def reshaped(trace: Trace, x: Channels) -> Channels:
    """Channels after a reshape in row-major order, to the current call's output.

    Where the channel axis is split, the channels at the same place of the axis that carries them
    on go together, so that what is left fills the smaller shape in the same order. Channels are
    frozen where no axis can carry them.
    """
    shape = tuple(trace.call.outputs[0].shape)
    if x.axis is None:
        return trace.opaque(shape)
    whole = place_after_reshape(x.shape, x.axis, shape)
    if whole is not None:
        axis, inner, outer = whole
        index = np.tile(np.repeat(np.arange(len(x)), inner), outer)
        return trace.passed(x.taken(index), axis)
    name = trace.call.operation.name
    if None in (*x.shape[1:], *shape[1:]):
        trace.freeze(x, f"{name} reshapes a tensor of open size")
        return trace.opaque(shape)
    carrier = None
    if x.axis > 0 and x.shape[0] == shape[0] and _product(x.shape[1:]) == _product(shape[1:]):
        places = _places(x).reshape(cast(Any, shape[1:]))
        carrier = _carrier(x, places)
    if carrier is None:
        trace.freeze(x, f"{name} mixes them with other axes")
        return trace.opaque(shape)
    rows = _rows(places, carrier)
    made = Channels(shape, carrier, x.ids[rows[:, 0]], agreed(x.constant[rows].T))
    for row in np.unique(x.ids[rows], axis=1).T:
        trace.unite(made, replace(made, ids=row))
    return made


def place_after_reshape(old: Sizes, axis: int, new: Sizes) -> tuple[int, int, int] | None:
    """Where the channels are found after a reshape that leaves their axis whole.

    Numbers keep their order, so all that follows an axis says where it is found again: the
    channels lie whole in that axis of `new` behind which a part of what follows them lies.

    Args:
        old: the shape before; None where a size is open.
        axis: the channel axis in it.
        new: the shape after.

    Returns:
        The axis of `new`, how often each channel is repeated in it, and how often all of them
        are; None where the channels are cut apart or cannot be followed.
    """
    channels, following = old[axis], _product(old[axis + 1 :])
    if channels is None or following is None:
        return None
    # The batch is the axis of no channels, unless they were moved there.
    for place in range(min(axis, 1), len(new)):
        size, behind = new[place], _product(new[place + 1 :])
        if size is None or behind is None or behind > following or following % behind:
            continue
        inner = following // behind
        if size % (channels * inner) == 0:
            return place, inner, size // (channels * inner)
    return None


def _product(sizes: Sizes) -> int | None:
    return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]


def _places(x: Channels) -> np.ndarray:
    """Int, of the shape of an example: each number's place along the channel axis."""
    assert x.axis is not None
    sizes = [1] * (len(x.shape) - 1)
    sizes[x.axis - 1] = len(x)
    return np.broadcast_to(np.arange(len(x)).reshape(sizes), cast(Any, x.shape[1:]))


def _carrier(x: Channels, places: np.ndarray) -> int | None:
    """The axis that carries channels on: one that keeps all apart, else the last that can."""
    distinct, channel = np.unique(x.ids, return_inverse=True)
    last = None
    for axis in range(places.ndim, 0, -1):
        count = _classes(channel[_rows(places, axis)], len(distinct))
        if count == len(distinct):
            return axis
        if count > 1 and last is None:
            last = axis
    return last


def _rows(places: np.ndarray, axis: int) -> np.ndarray:
    """Int (shape[axis], m): what each place of an axis, batch counted, holds."""
    moved = np.moveaxis(places, axis - 1, 0)
    return moved.reshape(len(moved), -1)


def _classes(rows: np.ndarray, count: int) -> int:
    """How many of the channels 0..count-1 can still go one by one when each row goes as one."""
    pairs = np.unique(np.stack([np.repeat(rows[:, 0], rows.shape[1]), rows.reshape(-1)]), axis=1)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs)), shape=(count, count))
    return int(connected_components(graph, directed=False)[0])
