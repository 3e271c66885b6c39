"""What channel rules write down: slices of weights, config entries, remarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

Role = Literal["filter", "scale", "state", "input"]


@dataclass(frozen=True, eq=False)
class Slice:
    """One axis of one weight, and the ids that index it.

    Attributes:
        variable: the weight.
        axis: which of its axes, counted from the front.
        ids: int64 (variable.shape[axis],).
        role: `filter` for what makes the channel (kernel and bias), `scale` for what scales and
            shifts it, `state` for statistics, `input` for what reads it.
    """

    variable: keras.Variable
    axis: int
    ids: np.ndarray
    role: Role


@dataclass(frozen=True, eq=False)
class Number:
    """A config entry that counts or lists channels, such as `filters` of a Conv2D.

    Attributes:
        layer: the layer or raw operation whose config it is.
        path: the keys that lead to the entry; more than one in the config of a wrapped layer, and
            beginning with `inbound_nodes` in the arguments of its calls.
        ids: the channels it counts.
        edited: from the entry and which of `ids` are kept, bool (len(ids),), to the new entry.
    """

    layer: keras.Operation
    path: tuple[str | int, ...]
    ids: np.ndarray
    edited: Callable[[Any, np.ndarray], Any]


@dataclass(frozen=True, eq=False)
class Remark:
    """Why some ids may not go, or what their going costs."""

    ids: np.ndarray
    layer: str
    reason: str


def counted(entry: Any, kept: np.ndarray) -> int:
    """An entry that counts channels, when some are kept."""
    return int(kept.sum())


def listed(entry: Any, kept: np.ndarray) -> Any:
    """An entry with one number a channel, or one for all of them."""
    if isinstance(entry, dict):
        # Some layers serialise an array, others make a list of it.
        entry = keras.saving.deserialize_keras_object(entry)
    return np.compress(kept, entry, axis=-1).tolist() if np.size(entry) > 1 else entry


def sized(axis: int) -> Callable[[Any, np.ndarray], tuple[int, ...]]:
    """For an entry that is a shape whose `axis` counts channels."""

    def edited(entry: Any, kept: np.ndarray) -> tuple[int, ...]:
        # None stands for whatever comes in, and shrinks by itself.
        sizes = list(entry)
        sizes[axis] = None if sizes[axis] is None else int(kept.sum())
        return tuple(sizes)

    return edited
