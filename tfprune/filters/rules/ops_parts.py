"""Raw operations that join and take parts: `ops.concatenate`, `ops.split`, `x[..., 2:6]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras.src.ops import core
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules.ops_common import (
    arguments,
    operations,
    rewritable,
    rewrite,
    stopped,
    taken,
)
from tfprune.filters.rules.registry import channel_rule

_FROZEN = operations(knp, "Matmul Dot Einsum Tensordot Inner Outer Vdot Cross Kron")


@channel_rule(*_FROZEN)
def multiplied(trace: Trace, operation: Any, *inputs: Channels) -> list[Channels]:
    """Sums over channels leave nothing that can be followed."""
    return stopped(trace, inputs, "sums products, in an order that no rule follows")


def _members(trace: Trace, inputs: Sequence[Channels]) -> list[Channels]:
    """What is joined, in order; of arrays among the tensors nothing may go."""
    remaining = iter(inputs)
    (listed,) = arguments(trace).values()
    return [
        next(remaining) if isinstance(each, keras.KerasTensor) else trace.opaque(np.shape(each))
        for each in listed
    ]


def _meeting(trace: Trace, members: Sequence[Channels], axis: int) -> Channels:
    """The channels of tensors that lie beside each other along another axis."""
    met = [trace.along(each, axis) for each in members]
    for other in met[1:]:
        trace.unite(met[0], other)
    values = np.stack([each.constant for each in met])
    constant = np.where((values == values[0]).all(axis=0), values[0], np.nan)
    return replace(met[0], constant=constant, linear=None)


@channel_rule(knp.Concatenate)
def concatenate(trace: Trace, operation: Any, *inputs: Channels) -> Channels:
    """Along the channel axis ids are joined; along another one they meet."""
    shape = tuple(trace.call.outputs[0].shape)
    axis = operation.axis % len(shape)
    carried = {each.axis for each in inputs if each.axis is not None}
    if not carried:
        return trace.opaque(shape)
    members = _members(trace, inputs)
    if axis not in carried:
        return replace(_meeting(trace, members, carried.pop()), shape=shape)
    parts = [trace.along(each, axis) for each in members]
    ids = np.concatenate([part.ids for part in parts])
    return Channels(shape, axis, ids, np.concatenate([part.constant for part in parts]))


@channel_rule(knp.Stack)
def stack(trace: Trace, operation: Any, *inputs: Channels) -> Channels:
    """Tensors lie beside each other along a new axis, so their channels go together."""
    shape = tuple(trace.call.outputs[0].shape)
    axes = [each.axis for each in inputs if each.axis is not None]
    if not axes:
        return trace.opaque(shape)
    met = _meeting(trace, _members(trace, inputs), axes[0])
    return replace(met, shape=shape, axis=axes[0] + (operation.axis % len(shape) <= axes[0]))


def _part(trace: Trace, x: Channels, index: np.ndarray) -> Channels:
    """Some of the channels, of which one has to stay: no layer reads a tensor of no channels."""
    if len(np.unique(index)) < len(x):
        name = trace.call.operation.name
        trace.freeze(taken(x, index[:1]), f"{name} needs a channel in each part")
    return taken(x, index)


@channel_rule(knp.Split)
def split(trace: Trace, operation: Any, x: Channels) -> list[Channels]:
    """Along the channels each output has a part of them; along another axis all.

    Equal sections stay equal: what stands at the same place of each goes together.
    """
    shapes = [tuple(output.shape) for output in trace.call.outputs]
    if x.axis is None:
        return [trace.opaque(shape) for shape in shapes]
    if operation.axis % len(x.shape) != x.axis:
        return [replace(x, shape=shape, linear=None) for shape in shapes]
    if isinstance(operation.indices_or_sections, int):
        sections = np.split(np.arange(len(x)), operation.indices_or_sections)
        parts = [taken(x, index) for index in sections]
        for other in parts[1:]:
            trace.unite(parts[0], other)
        return parts
    indices = list(operation.indices_or_sections)
    ordered = all(a < b for a, b in zip([0, *indices], [*indices, len(x)], strict=True))
    if not ordered or not rewritable(trace):
        return stopped(trace, [x], "has parts that cannot be followed")

    def moved(entry: Any, kept: np.ndarray) -> list[int]:
        return [int(kept[:index].sum()) for index in indices]

    trace.edit(x, moved, "indices_or_sections")
    return [_part(trace, x, index) for index in np.split(np.arange(len(x)), indices)]


@channel_rule(core.Unstack)
def unstack(trace: Trace, operation: Any, x: Channels) -> list[Channels]:
    """The tensors along another axis; along the channels each one would be an output."""
    if x.axis is None or operation.axis % len(x.shape) == x.axis:
        return stopped(trace, [x], "gives an output to each channel")
    axis = x.axis - (operation.axis % len(x.shape) < x.axis)
    shapes = [tuple(output.shape) for output in trace.call.outputs]
    return [replace(x, shape=shape, axis=axis, linear=None) for shape in shapes]


def _keys(key: Any, rank: int) -> list[Any]:
    """One entry of an index for each axis of the input, None between them for each new axis."""
    keys = list(key) if isinstance(key, list | tuple) else [key]
    taken = sum(each is not None and each is not Ellipsis for each in keys)
    place = next((i for i, each in enumerate(keys) if each is Ellipsis), len(keys))
    return [*keys[:place], *[slice(None)] * (rank - taken), *keys[place + 1 :]]


@channel_rule(knp.GetItem)
def get_item(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Bounds on other axes pass channels on; those on the channels are moved with them."""
    if x.axis is None:
        return trace.passed(x)
    keys = _keys(arguments(trace)["key"], len(x.shape))
    if not all(each is None or isinstance(each, int | slice) for each in keys):
        return stopped(trace, [x], "takes what only its index knows")
    reading = [place for place, each in enumerate(keys) if each is not None]
    place = reading[x.axis]
    shape = tuple(trace.call.outputs[0].shape)
    axis = sum(not isinstance(each, int) for each in keys[:place])
    asked = keys[place]
    if asked in (slice(None), slice(None, None, -1)):
        return trace.passed(taken(x, np.arange(len(x))[asked]), axis)
    if not rewritable(trace) or (isinstance(asked, slice) and asked.step not in (None, 1)):
        return stopped(trace, [x], "takes channels that cannot be followed")
    index = np.atleast_1d(np.arange(len(x))[asked])
    if not len(index):
        return stopped(trace, [x], "takes no channels")

    def moved(kept: np.ndarray) -> list[Any]:
        start = int(kept[: index[0]].sum())
        stop = start + int(kept[index].sum())
        new = start if isinstance(asked, int) else slice(start, stop)
        return [*keys[:place], new, *keys[place + 1 :]]

    rewrite(trace, x, {"key": moved})
    part = _part(trace, x, index)
    return trace.opaque(shape) if isinstance(asked, int) else trace.passed(part, axis)


@channel_rule(knp.Take)
def take(trace: Trace, operation: Any, x: Channels, *rest: Channels) -> Channels | list[Channels]:
    """A list of places on another axis passes channels on; one on the channels is renumbered."""
    indices = arguments(trace)["indices"]
    if x.axis is None and not rest:
        return trace.passed(x)
    if rest or operation.axis is None or np.ndim(indices) != 1:
        return stopped(trace, [x, *rest], "takes what only its indices know")
    if operation.axis % len(x.shape) != x.axis:
        return trace.passed(x)
    index = np.asarray(keras.ops.convert_to_numpy(indices)) % len(x)
    if not rewritable(trace) or not len(index):
        return stopped(trace, [x], "takes channels that cannot be followed")

    def renumbered(kept: np.ndarray) -> np.ndarray:
        return (np.cumsum(kept) - 1)[index[kept[index]]].astype(np.int32)

    rewrite(trace, x, {"indices": renumbered})
    return trace.passed(_part(trace, x, index))
