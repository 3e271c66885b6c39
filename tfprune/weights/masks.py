"""Exact masks: which entries of weight tensors live. Pure NumPy; True lives, False is dead.

Every mask is cut by one rule: score each entry, let exactly as many of the lowest die as the
sparsity asks, and settle ties by position, so that the same weights always give the same mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from tfprune.errors import UsageError

Select: TypeAlias = Literal["magnitude", "random"]


def magnitude_mask(
    value: np.ndarray, sparsity: float, mask: np.ndarray | None = None
) -> np.ndarray:
    """Masks the smallest weights of one tensor.

    Args:
        value: weights of any shape and float dtype.
        sparsity: share of the entries that shall be dead, 0 to 1.
        mask: the mask so far, of the same shape: its dead entries stay dead, so masks nest.

    Returns:
        A bool array of the shape of `value` with exactly `round(sparsity * size)` dead entries,
        or those of `mask` if these are more already.

    Raises:
        UsageError: a sparsity outside 0 to 1.
    """
    return lowest_die(scores(value), sparsity, mask)


def layer_masks(
    values: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
) -> list[np.ndarray]:
    """Masks each tensor on its own, all to the same sparsity.

    Args:
        values: weight tensors.
        sparsity: share of dead entries in each tensor, 0 to 1.
        masks: the masks so far, one a tensor; they nest.
        select: "magnitude", the smallest die; "random", a seeded choice that ignores size.
        seed: seed of the random choice.

    Returns:
        One bool array a tensor, as of `magnitude_mask`.

    Raises:
        UsageError: a sparsity outside 0 to 1.
    """
    old: Sequence[np.ndarray | None] = masks if masks else [None] * len(values)
    return [
        lowest_die(scores(value, select, seed, index), sparsity, mask)
        for index, (value, mask) in enumerate(zip(values, old, strict=True))
    ]


def global_masks(
    values: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
) -> list[np.ndarray]:
    """Masks all tensors together: one ranking, so layers end at different sparsities.

    Args:
        values: weight tensors.
        sparsity: share of dead entries over all tensors together, 0 to 1.
        masks: the masks so far, one a tensor; they nest.
        select: "magnitude", the smallest die; "random", a seeded choice that ignores size.
        seed: seed of the random choice.

    Returns:
        One bool array a tensor; over all of them exactly `round(sparsity * total size)` entries
        are dead, or those of `masks` if these are more already.

    Raises:
        UsageError: a sparsity outside 0 to 1.
    """
    flat = [scores(value, select, seed, index).ravel() for index, value in enumerate(values)]
    old = np.concatenate([mask.ravel() for mask in masks]) if masks else None
    joined = lowest_die(np.concatenate(flat), sparsity, old)
    parts = np.split(joined, np.cumsum([part.size for part in flat])[:-1])
    return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]


def scores(
    value: np.ndarray, select: Select = "magnitude", seed: int = 0, index: int = 0
) -> np.ndarray:
    """Scores each weight; the lowest die first.

    An exact zero scores lowest whatever the selection, so that the mask of a model trained
    before can be read back from its zeros.

    Args:
        value: weights of any shape and float dtype.
        select: "magnitude" scores by absolute value, "random" by a seeded draw.
        seed: seed of the draw.
        index: which tensor of the model it is; tensors of one shape draw differently.

    Returns:
        A float array of the shape of `value`, without NaN, 0 or greater.
    """
    if select == "random":
        # 1 - [0, 1) is never 0, so only a weight that is zero scores 0.
        drawn = 1.0 - np.random.default_rng((seed, index)).random(value.shape)
        return np.where(value == 0, 0.0, drawn)
    wide = value.dtype if value.dtype in (np.float32, np.float64) else np.float32
    score = np.abs(value.astype(wide, copy=False))
    # A NaN compares with nothing: as an infinity it is ranked, and dies last.
    score[np.isnan(score)] = np.inf
    return score


def lowest_die(score: np.ndarray, sparsity: float, mask: np.ndarray | None = None) -> np.ndarray:
    """Cuts a mask: the lowest scores die, exactly as many as the sparsity asks.

    Args:
        score: scores of any shape, 0 or greater, without NaN.
        sparsity: share of the entries that shall be dead, 0 to 1.
        mask: the mask so far; its dead entries stay dead.

    Returns:
        A bool array of the shape of `score`; `mask` itself if nothing more has to die.

    Raises:
        UsageError: a sparsity outside 0 to 1.
    """
    count = round(check_sparsity(sparsity) * score.size)
    if mask is not None:
        if count <= mask.size - np.count_nonzero(mask):
            return mask
        score = np.where(mask, score, -1.0)
    alive = np.ones(score.shape, bool)
    if count == 0:
        return alive
    flat = score.ravel()
    threshold = np.partition(flat, count - 1)[count - 1]
    dead = flat < threshold
    # A plain `<=` would take every tie with the threshold, and so too many.
    dead[np.flatnonzero(flat == threshold)[: count - np.count_nonzero(dead)]] = True
    alive[dead.reshape(score.shape)] = False
    return alive


def check_sparsity(sparsity: Any, what: str = "sparsity") -> float:
    """Returns a sparsity as a float, or says what is wrong with it.

    Raises:
        UsageError: it is no number from 0 to 1.
    """
    value = float(sparsity)
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"{what} is {value:g}; it is a share of the weights, from 0 to 1")
    return value
