"""Importance: one score per removable unit, higher is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.records import Slice


def _accumulated(
    groups: ChannelGroups,
    slices: Iterable[Slice],
    function: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of `function` of the weights over each unit, and how many weights each unit has."""
    totals, sizes = np.zeros(groups.unit_count), np.zeros(groups.unit_count)
    for entry in slices:
        value = np.asarray(keras.ops.convert_to_numpy(entry.variable), np.float64)
        axes = tuple(axis for axis in range(value.ndim) if axis != entry.axis)
        units = groups.unit[entry.ids]
        np.add.at(totals, units, function(value).sum(axis=axes))
        np.add.at(sizes, units, value.size / value.shape[entry.axis])
    return totals, sizes


def l1(groups: ChannelGroups) -> np.ndarray:
    """Sum of absolute filter weights (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return _accumulated(groups, groups.making("filter"), np.abs)[0]


def l2(groups: ChannelGroups) -> np.ndarray:
    """Euclidean norm of the filter weights over all coupled layers (Li et al. 2017; He et al.
    2018, Soft Filter Pruning).
    """  # noqa: D205
    return np.sqrt(_accumulated(groups, groups.making("filter"), np.square)[0])


def lasso(groups: ChannelGroups) -> np.ndarray:
    """The norms that `LearnStructure` shrinks, by the square root of the group's size (Wen et al.
    2016; Yuan & Lin 2006).
    """  # noqa: D205
    squares, sizes = _accumulated(groups, groups.scaled(), np.square)
    return np.sqrt(squares / np.maximum(sizes, 1))


def random(groups: ChannelGroups) -> np.ndarray:
    """A baseline that knows nothing; the same for the same model (Blalock et al. 2020)."""
    return np.random.default_rng(0).random(groups.unit_count) + 1e-6


IMPORTANCE: dict[str, Callable[[ChannelGroups], np.ndarray]] = {
    "l1": l1,
    "l2": l2,
    "lasso": lasso,
    "random": random,
}


def scores(
    groups: ChannelGroups, importance: str | Callable[[ChannelGroups], np.ndarray]
) -> np.ndarray:
    """Importance of every unit, comparable between groups.

    Args:
        groups: the channel groups of a model.
        importance: a name in `IMPORTANCE`, or a function of the groups that returns float
            (groups.unit_count,).

    Returns:
        float64 (groups.unit_count,): each score divided by the mean of its group's scores that are
        not zero, so that the scale of a layer's weights does not decide; dead units score zero.

    Raises:
        UsageError: the name is not known, or the function returns another shape.
    """
    if isinstance(importance, str):
        if importance not in IMPORTANCE:
            names = ", ".join(sorted(IMPORTANCE))
            raise UsageError(f"unknown importance {importance!r}: choose one of {names}")
        importance = IMPORTANCE[importance]
    raw = np.asarray(importance(groups), np.float64)
    if raw.shape != (groups.unit_count,):
        raise UsageError(
            f"importance gave an array of shape {raw.shape}: return one score a unit, "
            f"({groups.unit_count},)"
        )
    found = raw.copy()
    for group in groups:
        live = raw[group.units][raw[group.units] > 0]
        if live.size:
            found[group.units] = raw[group.units] / live.mean()
    found[groups.dead()] = 0.0
    return found
