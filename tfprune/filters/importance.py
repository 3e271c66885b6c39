"""Importance: one score per removable unit, higher is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.channels import Slice
from tfprune.filters.gradients import LabelledImages, gradients
from tfprune.filters.groups import ChannelGroups
from tfprune.vocabulary import IMPORTANCES, ImportanceName

Importance = ImportanceName | str | Callable[[ChannelGroups], np.ndarray]


def _weights(entry: Slice) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(entry.variable), np.float64)


def _summed(
    groups: ChannelGroups, slices: Iterable[Slice], numbers: Callable[[Slice], np.ndarray]
) -> np.ndarray:
    """Sums over each unit, where `numbers` gives one number for each weight of a slice."""
    totals = np.zeros(groups.unit_count)
    for entry in slices:
        value = numbers(entry)
        axes = tuple(axis for axis in range(value.ndim) if axis != entry.axis)
        np.add.at(totals, groups.unit[entry.ids], value.sum(axis=axes))
    return totals


def _count(entry: Slice) -> np.ndarray:
    return np.ones(entry.variable.shape)


def l1(groups: ChannelGroups) -> np.ndarray:
    """Sum of absolute filter weights (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return _summed(groups, groups.making("filter"), lambda entry: np.abs(_weights(entry)))


def l2(groups: ChannelGroups) -> np.ndarray:
    """Euclidean norm of the filter weights over all coupled layers (Li et al. 2017; He et al.
    2018, Soft Filter Pruning).
    """  # noqa: D205
    slices = groups.making("filter")
    return np.sqrt(_summed(groups, slices, lambda entry: np.square(_weights(entry))))


def lasso(groups: ChannelGroups) -> np.ndarray:
    """The norms that `LearnStructure` shrinks, by the square root of the group's size (Wen et al.
    2016; Yuan & Lin 2006).
    """  # noqa: D205
    slices = groups.scaled()
    squares = _summed(groups, slices, lambda entry: np.square(_weights(entry)))
    return np.sqrt(squares / np.maximum(_summed(groups, slices, _count), 1))


def bn_gamma(groups: ChannelGroups) -> np.ndarray:
    """Absolute gamma of the BatchNorm that follows, summed over coupled layers (Liu et al. 2017,
    Network Slimming).

    Gamma of the other normalisations counts alike. A group in which a channel has no gamma, as
    after a layer without BatchNorm or before one with `scale=False`, goes by `l2` as a whole, since
    scores are compared within groups first.
    """  # noqa: D205
    slices = [entry for entry in groups.making("scale") if entry.variable.name == "gamma"]
    found = _summed(groups, slices, lambda entry: np.abs(_weights(entry)))
    bare = _summed(groups, slices, _count) == 0
    norms = l2(groups)
    for group in groups:
        if bare[group.units].any():
            found[group.units] = norms[group.units]
    return found


def geometric_median(groups: ChannelGroups) -> np.ndarray:
    """Sum of a filter's distances to the other filters of its layer, summed over coupled layers.

    What lies nearest to the geometric median is what the others can stand in for (He et al. 2019,
    Filter Pruning via Geometric Median). Biases do not count.
    """
    found = np.zeros(groups.unit_count)
    for entry in groups.making("filter"):
        kernel = _weights(entry)
        if kernel.ndim > 1:
            rows = np.moveaxis(kernel, entry.axis, 0).reshape(kernel.shape[entry.axis], -1)
            np.add.at(found, groups.unit[entry.ids], _distances(rows).sum(axis=1))
    return found


def _distances(rows: np.ndarray) -> np.ndarray:
    """Euclidean distances, (n, n), by a matrix product, which wide layers need."""
    squares = np.square(rows).sum(axis=1)
    found = squares[:, None] + squares - 2 * rows @ rows.T
    return np.sqrt(np.maximum(found, 0))


def taylor(groups: ChannelGroups, data: LabelledImages) -> np.ndarray:
    """How much the loss would change to first order if the unit became zero (Molchanov et al.
    2019, Importance Estimation for Neural Network Pruning).

    For each batch the gradients times the weights are summed over the unit, whichever layers it
    spans; their absolute values are averaged over the batches. The weights are those that carry the
    unit's scale: gamma and beta where BatchNorm follows, the paper's gate, and else filter and
    bias. The loss is the cross entropy, and the model runs as at inference.
    """  # noqa: D205

    def change(found: dict[int, np.ndarray]) -> np.ndarray:
        slices = [entry for entry in groups.scaled() if id(entry.variable) in found]
        return np.abs(
            _summed(groups, slices, lambda entry: found[id(entry.variable)] * _weights(entry))
        )

    return np.mean([change(found) for found in gradients(groups.model, data)], axis=0)


def random(groups: ChannelGroups) -> np.ndarray:
    """A baseline that knows nothing; the same for the same model (Blalock et al. 2020)."""
    return np.random.default_rng(0).random(groups.unit_count) + 1e-6


IMPORTANCE: dict[ImportanceName, Callable[..., np.ndarray]] = {
    "l1": l1,
    "l2": l2,
    "lasso": lasso,
    "bn_gamma": bn_gamma,
    "geometric_median": geometric_median,
    "taylor": taylor,
    "random": random,
}
"""By name; functions of the channel groups, and `taylor` of labelled images too."""


def scores(
    groups: ChannelGroups, importance: Importance, data: LabelledImages | None = None
) -> np.ndarray:
    """Importance of every unit, comparable between groups.

    Args:
        groups: the channel groups of a model.
        importance: a name in `IMPORTANCE`, or a function of the groups that returns float
            (groups.unit_count,).
        data: images, float or uint8 (n, ...) as the model takes them, and int (n,) labels; `taylor`
            needs them, and nothing else looks at them.

    Returns:
        float64 (groups.unit_count,): each score divided by the mean of its group's scores, so that
        the scale of a layer's weights does not decide; dead units score zero. They count in the
        mean: the more of a group is dead, the more each of the others matters. Without them, what
        is left of a group would compete among itself for each further removal, to the last one.

    Raises:
        UsageError: the name is not known, data are missing or do not fit the model, or the function
            returns another shape or what is no number.
    """
    raw = np.asarray(_raw(groups, importance, data), np.float64)
    if raw.shape != (groups.unit_count,):
        raise UsageError(
            f"importance gave an array of shape {raw.shape}: return one score a unit, "
            f"({groups.unit_count},)"
        )
    if not np.isfinite(raw).all():
        raise UsageError(
            f"importance gave {np.count_nonzero(~np.isfinite(raw))} scores that are no finite "
            "numbers: look for NaN in the model's weights and the data"
        )
    found = raw.copy()
    for group in groups:
        total = raw[group.units].sum()
        if total > 0:
            found[group.units] = raw[group.units] * (group.size / total)
    found[groups.dead()] = 0.0
    return found


def _raw(groups: ChannelGroups, importance: Importance, data: LabelledImages | None) -> np.ndarray:
    if callable(importance):
        return importance(groups)
    score = IMPORTANCE.get(cast("ImportanceName", importance))
    if score is None:
        names = ", ".join(IMPORTANCES)
        raise UsageError(f"unknown importance {importance!r}: choose one of {names}")
    if importance != "taylor":
        return score(groups)
    if data is None:
        raise UsageError("importance 'taylor' needs labelled images: give data=(images, labels)")
    return taylor(groups, data)
