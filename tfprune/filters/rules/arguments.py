"""What a layer or raw operation was told: axes in its config, arguments beside its tensors.

A raw operation keeps part of what it was told in its config (`axis`, `newshape`) and part beside
the tensors of its call (the 3 of `x + 3`, the bounds of `x[..., 2:6]`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import keras
import numpy as np

from tfprune.filters.channels import Channels, Trace
from tfprune.model import layer_table


def operations(module: ModuleType, names: str) -> list[type]:
    """The classes of these names, without those that this version of Keras does not have."""
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


def channel_axis(layer: keras.Operation, rank: int) -> int:
    """The channel axis that a layer's `data_format` names, counted from the front."""
    return layer_table.channel_axis(layer) % rank


def axes_from_front(axis: int | Iterable[int] | None, rank: int) -> list[int]:
    """The axes that a config names, counted from the front, in its order; None means all."""
    if axis is None:
        return list(range(rank))
    return [place % rank for place in ([axis] if isinstance(axis, int) else axis)]


def arguments(trace: Trace) -> dict[str, Any]:
    """What the current operation was called with, by the names of its parameters."""
    call = trace.call
    bound = inspect.signature(call.operation.call).bind(*call.args, **call.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def rewritable(trace: Trace) -> bool:
    """Whether what the current operation was told can be rewritten, for this call alone."""
    return len(trace.call.operation._inbound_nodes) == 1


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
            argument = keras.saving.serialize_keras_object(value(kept))
            if name in kwargs:
                kwargs[name] = argument
            else:
                args[places.index(name)] = argument
        return {**node, "args": args, "kwargs": kwargs}

    trace.edit(channels, edited, "inbound_nodes", 0)
