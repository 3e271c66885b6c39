"""Raw operations that move, spread and renumber axes: `ops.transpose`, `ops.reshape`, `ops.pad`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules.ops_common import (
    arguments,
    axes_of,
    operations,
    rewritable,
    stopped,
    taken,
)
from tfprune.filters.rules.registry import channel_rule
from tfprune.model.type_table import TypeTable

Sizes = tuple[int | None, ...]


def _moved(operation: Any, rank: int) -> list[int]:
    order = [each for each in range(rank) if each not in axes_of(operation.source, rank)]
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
    return [each % rank for each in axes]


# Which axis of the input is found at each place of the output.
_ORDER: TypeTable[Callable[[Any, int], list[int]]] = TypeTable(
    {
        knp.Moveaxis: _moved,
        knp.Swapaxes: _swapped,
        knp.Transpose: _transposed,
    }
)


@channel_rule(*_ORDER)
def permuted(trace: Trace, operation: Any, x: Channels) -> Channels:
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
    new = axes_of(operation.axis, rank)
    return trace.passed(x, axis=[each for each in range(rank) if each not in new][x.axis])


@channel_rule(knp.Squeeze)
def squeeze(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Named axes of size one go."""
    if x.axis is None:
        return trace.passed(x)
    if operation.axis is None:
        return stopped(trace, [x], "names no axis, and would drop the channels if one were left")
    gone = axes_of(operation.axis, len(x.shape))
    if x.axis in gone:
        return stopped(trace, [x], "drops the axis of the channels")
    return trace.passed(x, axis=x.axis - sum(each < x.axis for each in gone))


@channel_rule(knp.Flip)
def flip(trace: Trace, operation: Any, x: Channels) -> Channels:
    """Over the channels their order turns round."""
    if x.axis is not None and x.axis in axes_of(operation.axis, len(x.shape)):
        x = taken(x, np.arange(len(x))[::-1])
    return trace.passed(x)


@channel_rule(knp.Repeat)
def repeat(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Each channel, or each of its rows, comes several times."""
    if x.axis is None:
        return trace.passed(x)
    if operation.axis is None:
        return stopped(trace, [x], "flattens it")
    if operation.axis % len(x.shape) == x.axis:
        times = np.ravel(operation.repeats)
        if len(times) > 1:
            return stopped(trace, [x], "repeats each channel another number of times")
        x = taken(x, np.repeat(np.arange(len(x)), times[0]))
    return trace.passed(x)


@channel_rule(knp.Tile)
def tile(trace: Trace, operation: Any, x: Channels) -> Channels:
    """All channels, or all of their rows, come several times."""
    shape = tuple(trace.call.outputs[0].shape)
    if x.axis is None:
        return trace.passed(x)
    back = x.axis - len(x.shape)
    times = [1] * len(shape) + list(np.ravel(operation.repeats))
    return trace.passed(taken(x, np.tile(np.arange(len(x)), times[back])), len(shape) + back)


@channel_rule(*operations(knp, "BroadcastTo"))
def broadcast_to(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Other axes are spread; the wanted shape counts the channels."""
    if x.axis is None:
        return trace.passed(x)
    shape = tuple(trace.call.outputs[0].shape)
    axis = x.axis - len(x.shape) + len(shape)
    if shape[axis] != len(x) or not rewritable(trace):
        return stopped(trace, [x], "spreads it over all channels")
    spread = replace(x, shape=shape, axis=axis, linear=None)
    trace.number("shape", spread, axis)
    return spread


@channel_rule(knp.Pad)
def pad(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Padding beside the channels makes a constant vary; padding the channels adds some."""
    if x.axis is None:
        return trace.passed(x)
    constant = operation.mode == "constant"
    given = arguments(trace)["constant_values"]
    value = 0.0 if given is None else given
    if np.size(value) > 1:
        return stopped(trace, [x], "pads with several values")
    widths = [tuple(np.broadcast_to(each, 2).tolist()) for each in operation.pad_width]
    widths *= len(x.shape) if len(widths) == 1 else 1
    before, after = widths[x.axis]
    if before + after and not constant:
        return stopped(trace, [x], "pads channels with each other")
    if constant and any(sum(each) for axis, each in enumerate(widths) if axis != x.axis):
        x = replace(x, constant=np.where(x.constant == value, x.constant, np.nan))
    if not before + after:
        return trace.passed(x)

    def fill(count: int) -> Channels:
        shape = (*x.shape[: x.axis], count, *x.shape[(x.axis or 0) + 1 :])
        return trace.along(trace.opaque(shape), x.axis or 0)

    parts = [fill(before), x, fill(after)]
    values = [np.full(before, value), x.constant, np.full(after, value)]
    return Channels(
        tuple(trace.call.outputs[0].shape),
        x.axis,
        np.concatenate([part.ids for part in parts]),
        np.concatenate(values).astype(np.float64),
    )


def reshaped(old: Sizes, axis: int, new: Sizes) -> tuple[int, int, int] | None:
    """Where the channels are found after a reshape.

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
    for place in range(len(new)):
        size, behind = new[place], _product(new[place + 1 :])
        if size is None or behind is None or behind > following or following % behind:
            continue
        inner = following // behind
        if size % (channels * inner) == 0:
            return place, inner, size // (channels * inner)
    return None


def _product(sizes: Sizes) -> int | None:
    return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]


@channel_rule(knp.Reshape)
def reshape(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """The wanted shape counts the channels, by themselves or times a number of positions.

    Left as it is, `reshape(x, (-1, 36, 8))` would put numbers of several examples together once
    six channels are left, so what cannot be rewritten is frozen.
    """
    if x.axis is None:
        return trace.passed(x)
    shape = tuple(trace.call.outputs[0].shape)
    found = reshaped(x.shape, x.axis, shape)
    if found is None or not rewritable(trace):
        return stopped(trace, [x], "cuts the axis of the channels apart")
    place, inner, outer = found
    index = np.tile(np.repeat(np.arange(len(x)), inner), outer)
    flat = trace.passed(taken(x, index), place)
    trace.number("newshape", flat, place)
    return flat
