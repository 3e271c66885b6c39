"""What the rules of raw `keras.ops` share: the arguments of a call and the axes it works on.

A raw operation keeps part of what it was told in its config (`axis`, `newshape`) and part beside
the tensors of its call (the 3 of `x + 3`, the bounds of `x[..., 2:6]`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import keras
import numpy as np

from tfprune.filters.channels import Channels, Trace


def operations(module: ModuleType, names: str) -> list[type]:
    """The operation classes of these names, without those that this Keras does not have."""
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


def arguments(trace: Trace) -> dict[str, Any]:
    """What the current operation was called with, by the names of its parameters."""
    call = trace.call
    bound = inspect.signature(call.operation.call).bind(*call.args, **call.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def rewrite(
    trace: Trace, channels: Channels, new: Mapping[str, Callable[[np.ndarray], Any]]
) -> None:
    """Says that arguments of the current call depend on which channels live.

    Args:
        trace: where it is recorded.
        channels: what they depend on.
        new: for each parameter, from which channels are kept, bool (channels,), to its value.
    """
    places = list(inspect.signature(trace.call.operation.call).parameters)

    def edited(node: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
        args, kwargs = list(node["args"]), dict(node["kwargs"])
        for name, value in new.items():
            said = keras.saving.serialize_keras_object(value(kept))
            if name in kwargs:
                kwargs[name] = said
            else:
                args[places.index(name)] = said
        return {**node, "args": args, "kwargs": kwargs}

    trace.edit(channels, edited, "inbound_nodes", 0)


def axes_of(axis: int | Iterable[int] | None, rank: int) -> set[int]:
    """Axes counted from the front; None means all of them."""
    if axis is None:
        return set(range(rank))
    return {each % rank for each in ([axis] if isinstance(axis, int) else axis)}


def stopped(trace: Trace, inputs: Sequence[Channels], reason: str) -> list[Channels]:
    """Freezes `inputs`, since the current operation `reason`; nothing is known of its outputs."""
    for channels in inputs:
        trace.freeze(channels, f"{trace.call.operation.name} {reason}")
    return [trace.opaque(output.shape) for output in trace.call.outputs]


def taken(channels: Channels, index: np.ndarray) -> Channels:
    """The channels at the places `index`, int (n,), of a tensor that carries some."""
    axis = channels.axis
    assert axis is not None
    return replace(
        channels,
        shape=(*channels.shape[:axis], len(index), *channels.shape[axis + 1 :]),
        ids=channels.ids[index],
        constant=channels.constant[index],
        linear=None,
    )


def rewritable(trace: Trace) -> bool:
    """Whether what the current operation was told can be rewritten, for this call alone."""
    return len(trace.call.operation._inbound_nodes) == 1


def only_zero(constant: np.ndarray) -> np.ndarray:
    """What is left of constants where only zero stays what it is."""
    return np.where(constant == 0, 0.0, np.nan)


def unchanged(constant: np.ndarray) -> np.ndarray:
    """Constants after an operation that returns one of its numbers, or their mean."""
    return constant


def unknown_value(constant: np.ndarray) -> np.ndarray:
    """Constants after an operation that nobody follows."""
    return np.full(len(constant), np.nan)
