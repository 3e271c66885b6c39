"""What joins tensors or takes parts of one: concatenate, stack, pad, split, slice, take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.ops import core
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace, agreed
from tfprune.filters.rules.arguments import arguments, rewritable, rewrite
from tfprune.filters.rules.registry import channel_rule, refuse

# -- joining ------------------------------------------------------------------------------------


@channel_rule(layers.Concatenate, knp.Concatenate)
def concatenate(trace: Trace, operation: Any, *inputs: Channels) -> Channels:
    """Along the channel axis ids are joined; along another one they meet."""
    shape = tuple(trace.call.outputs[0].shape)
    axis = operation.axis % len(shape)
    carried = {x.axis for x in inputs if x.axis is not None}
    if not carried:
        return trace.opaque(shape)
    members = _members(trace, inputs)
    if axis in carried:
        return _joined(trace, [trace.along(member, axis) for member in members])
    return replace(_meeting(trace, members, carried.pop()), shape=shape)


@channel_rule(knp.Stack)
def stack(trace: Trace, operation: Any, *inputs: Channels) -> Channels:
    """Tensors lie beside each other along a new axis, so their channels go together."""
    shape = tuple(trace.call.outputs[0].shape)
    axes = [x.axis for x in inputs if x.axis is not None]
    if not axes:
        return trace.opaque(shape)
    meeting = _meeting(trace, _members(trace, inputs), axes[0])
    return replace(meeting, shape=shape, axis=axes[0] + (operation.axis % len(shape) <= axes[0]))


def _members(trace: Trace, inputs: Sequence[Channels]) -> list[Channels]:
    """The joined tensors, in order; of arrays among them nothing may go."""
    if isinstance(trace.call.operation, keras.Layer):
        return list(inputs)
    tensors = iter(inputs)
    (members,) = arguments(trace).values()
    return [
        next(tensors) if isinstance(member, keras.KerasTensor) else trace.opaque(np.shape(member))
        for member in members
    ]


def _joined(trace: Trace, parts: Sequence[Channels]) -> Channels:
    """Channels one after another along their axis, in the shape of the current call's output."""
    return Channels(
        tuple(trace.call.outputs[0].shape),
        parts[0].axis,
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.constant for part in parts]),
    )


def _meeting(trace: Trace, members: Sequence[Channels], axis: int) -> Channels:
    """The channels of tensors that lie beside each other along another axis."""
    meeting = [trace.along(member, axis) for member in members]
    for other in meeting[1:]:
        trace.unite(meeting[0], other)
    constant = agreed(np.stack([member.constant for member in meeting]))
    return replace(meeting[0], constant=constant, linear=None)


@channel_rule(knp.Pad)
def pad(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Padding beside the channels makes a constant vary; padding the channels adds some."""
    if x.axis is None:
        return trace.passed(x)
    constant = operation.mode == "constant"
    value = arguments(trace)["constant_values"]
    value = 0.0 if value is None else value
    if np.size(value) > 1:
        return refuse(trace, "pads with several values", x)
    widths = [tuple(np.broadcast_to(width, 2).tolist()) for width in operation.pad_width]
    widths *= len(x.shape) if len(widths) == 1 else 1
    before, after = widths[x.axis]
    if before + after and not constant:
        return refuse(trace, "pads channels with each other", x)
    if constant and any(sum(width) for axis, width in enumerate(widths) if axis != x.axis):
        x = x.only(value)
    if not before + after:
        return trace.passed(x)
    return _joined(trace, [_filled(trace, x, before, value), x, _filled(trace, x, after, value)])


def _filled(trace: Trace, x: Channels, count: int, value: float) -> Channels:
    """So many channels of one value beside those of `x`, which cannot go."""
    assert x.axis is not None
    shape = (*x.shape[: x.axis], count, *x.shape[x.axis + 1 :])
    new = trace.along(trace.opaque(shape), x.axis)
    return replace(new, constant=np.full(count, value, np.float64))


# -- taking parts -------------------------------------------------------------------------------


def _part(trace: Trace, x: Channels, index: np.ndarray) -> Channels:
    """Some of the channels, of which one has to stay: no layer reads a tensor of no channels."""
    if len(np.unique(index)) < len(x):
        name = trace.call.operation.name
        trace.freeze(x.taken(index[:1]), f"{name} needs a channel in each part")
    return x.taken(index)


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
        parts = [x.taken(index) for index in sections]
        for other in parts[1:]:
            trace.unite(parts[0], other)
        return parts
    indices = list(operation.indices_or_sections)
    ordered = all(a < b for a, b in zip([0, *indices], [*indices, len(x)], strict=True))
    if not ordered or not rewritable(trace):
        return refuse(trace, "has parts that cannot be followed", x)

    def moved(entry: Any, kept: np.ndarray) -> list[int]:
        return [int(kept[:index].sum()) for index in indices]

    trace.edit(x, moved, "indices_or_sections")
    return [_part(trace, x, index) for index in np.split(np.arange(len(x)), indices)]


@channel_rule(core.Unstack)
def unstack(trace: Trace, operation: Any, x: Channels) -> list[Channels]:
    """The tensors along another axis; along the channels each one would be an output."""
    if x.axis is None or operation.axis % len(x.shape) == x.axis:
        return refuse(trace, "gives an output to each channel", x)
    axis = x.axis - (operation.axis % len(x.shape) < x.axis)
    shapes = [tuple(output.shape) for output in trace.call.outputs]
    return [replace(x, shape=shape, axis=axis, linear=None) for shape in shapes]


def _keys(key: Any, rank: int) -> list[Any]:
    """One entry of an index for each axis of the input, None between them for each new axis."""
    keys = list(key) if isinstance(key, list | tuple) else [key]
    taken = sum(entry is not None and entry is not Ellipsis for entry in keys)
    place = next((i for i, entry in enumerate(keys) if entry is Ellipsis), len(keys))
    return [*keys[:place], *[slice(None)] * (rank - taken), *keys[place + 1 :]]


@channel_rule(knp.GetItem)
def get_item(trace: Trace, operation: Any, x: Channels) -> Channels | list[Channels]:
    """Bounds on other axes pass channels on; those on the channels are moved with them."""
    if x.axis is None:
        return trace.passed(x)
    keys = _keys(arguments(trace)["key"], len(x.shape))
    if not all(entry is None or isinstance(entry, int | slice) for entry in keys):
        return refuse(trace, "takes what only its index knows", x)
    reading = [place for place, entry in enumerate(keys) if entry is not None]
    place = reading[x.axis]
    shape = tuple(trace.call.outputs[0].shape)
    axis = sum(not isinstance(entry, int) for entry in keys[:place])
    key = keys[place]
    if key in (slice(None), slice(None, None, -1)):
        return trace.passed(x.taken(np.arange(len(x))[key]), axis)
    if not rewritable(trace) or (isinstance(key, slice) and key.step not in (None, 1)):
        return refuse(trace, "takes channels that cannot be followed", x)
    index = np.atleast_1d(np.arange(len(x))[key])
    if not len(index):
        return refuse(trace, "takes no channels", x)

    def moved(kept: np.ndarray) -> list[Any]:
        start = int(kept[: index[0]].sum())
        stop = start + int(kept[index].sum())
        new = start if isinstance(key, int) else slice(start, stop)
        return [*keys[:place], new, *keys[place + 1 :]]

    rewrite(trace, x, {"key": moved})
    part = _part(trace, x, index)
    return trace.opaque(shape) if isinstance(key, int) else trace.passed(part, axis)


@channel_rule(knp.Take)
def take(trace: Trace, operation: Any, x: Channels, *rest: Channels) -> Channels | list[Channels]:
    """A list of places on another axis passes channels on; one on the channels is renumbered."""
    indices = arguments(trace)["indices"]
    if x.axis is None and not rest:
        return trace.passed(x)
    if rest or operation.axis is None or np.ndim(indices) != 1:
        return refuse(trace, "takes what only its indices know", x, *rest)
    if operation.axis % len(x.shape) != x.axis:
        return trace.passed(x)
    index = np.asarray(keras.ops.convert_to_numpy(indices)) % len(x)
    if not rewritable(trace) or not len(index):
        return refuse(trace, "takes channels that cannot be followed", x)

    def renumbered(kept: np.ndarray) -> np.ndarray:
        return (np.cumsum(kept) - 1)[index[kept[index]]].astype(np.int32)

    rewrite(trace, x, {"indices": renumbered})
    return trace.passed(_part(trace, x, index))
