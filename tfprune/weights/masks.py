"""Exact masks: which entries of weight tensors live. Pure NumPy; True lives, False is dead.

Every mask is cut by one rule: score each entry, let exactly as many of the lowest die as the
sparsity asks, and settle ties by position, so that the same weights always give the same mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np

from tfprune.errors import UsageError
from tfprune.schedule import check_sparsity
from tfprune.weights.lowest import joined, lowest, lowest_blocks
from tfprune.weights.patterns import Blocks, Layout, NofM, pooled, wanted

Score: TypeAlias = Callable[[np.ndarray], np.ndarray]
Select: TypeAlias = Literal["magnitude", "random"] | Score

# A target this close to that of an N:M pattern means the pattern.
_CLOSE = 1e-6


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
    sparsity: float | Sequence[float],
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Masks each tensor on its own.

    Args:
        values: weight tensors.
        sparsity: share of dead entries in each tensor, 0 to 1; one for all, or one a tensor.
        masks: the masks so far, one a tensor; they nest.
        select: which die, see `scores`.
        seed: seed of the random choice.
        layouts: the pattern of each tensor, None for one without.
        numbers: which tensors of the model they are, for the random choice; 0, 1, ... if not
            given.

    Returns:
        One bool array a tensor, as of `magnitude_mask`. With blocks the count is as near as
        whole blocks come; at the sparsity of an N:M pattern each of its groups keeps at most N.

    Raises:
        UsageError: a sparsity outside 0 to 1, or scores of another shape.
    """
    shares = list(sparsity) if isinstance(sparsity, Sequence) else [sparsity] * len(values)
    old: Sequence[np.ndarray | None] = masks if masks else [None] * len(values)
    grids = layouts or [None] * len(values)
    found = []
    rows = zip(numbers or range(len(values)), values, shares, old, grids, strict=True)
    for index, value, share, mask, layout in rows:
        score = scores(value, select, seed, index)
        found += _cut([score], share, None if mask is None else [mask], [layout], [value])
    return found


def global_masks(
    values: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
) -> list[np.ndarray]:
    """Masks all tensors together: one ranking, so layers end at different sparsities.

    Args:
        values: weight tensors.
        sparsity: share of dead entries over all tensors together, 0 to 1.
        masks: the masks so far, one a tensor; they nest.
        select: which die, see `scores`.
        seed: seed of the random choice.
        layouts: the pattern of each tensor, None for one without.

    Returns:
        One bool array a tensor; over all of them exactly `round(sparsity * total size)` entries
        are dead, or those of `masks` if these are more already; with patterns as of
        `layer_masks`.

    Raises:
        UsageError: a sparsity outside 0 to 1, or scores of another shape.
    """
    ranked = [scores(value, select, seed, index) for index, value in enumerate(values)]
    return _cut(ranked, sparsity, masks or None, layouts or [None] * len(values), values)


def scores(
    value: np.ndarray, select: Select = "magnitude", seed: int = 0, index: int = 0
) -> np.ndarray:
    """Scores each weight; the lowest die first.

    An exact zero scores lowest whatever the selection, so that the mask of a model trained
    before can be read back from its zeros. A NaN scores highest.

    Args:
        value: weights of any shape and float dtype.
        select: "magnitude" scores by absolute value, "random" by a seeded draw; a function from
            `value` to an array of its shape scores by any real numbers.
        seed: seed of the draw.
        index: which tensor of the model it is; tensors of one shape draw differently.

    Returns:
        A float array of the shape of `value`, without NaN.

    Raises:
        UsageError: a score function gives another shape, or no numbers.
    """
    if select == "random":
        # 1 - [0, 1) is never 0, so only a weight that is zero scores 0.
        drawn = 1.0 - np.random.default_rng((seed, index)).random(value.shape)
        return np.where(value == 0, 0.0, drawn)
    if select == "magnitude":
        wide = value.dtype if value.dtype in (np.float32, np.float64) else np.float32
        score = np.abs(value.astype(wide, copy=False))
    else:
        score = np.asarray(select(value))
        if score.shape != value.shape or score.dtype.kind not in "fiub":
            raise UsageError(
                f"select: the score function gave {score.dtype.name} of shape {score.shape} for "
                f"weights of shape {value.shape}; it must give a number for each weight"
            )
        score = np.where(value == 0, -np.inf, score)
    nan = np.isnan(score)
    if nan.any():
        # A NaN compares with nothing: as an infinity it is ranked, and dies last.
        score[nan] = np.inf
    return score


def lowest_die(score: np.ndarray, sparsity: float, mask: np.ndarray | None = None) -> np.ndarray:
    """Cuts a mask: the lowest scores die, exactly as many as the sparsity asks.

    Args:
        score: scores of any shape, without NaN.
        sparsity: share of the entries that shall be dead, 0 to 1.
        mask: the mask so far; its dead entries stay dead.

    Returns:
        A bool array of the shape of `score`; `mask` itself if nothing more has to die.

    Raises:
        UsageError: a sparsity outside 0 to 1.
    """
    return _cut([score], sparsity, None if mask is None else [mask], [None], [score])[0]


def _cut(
    ranked: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Cuts the masks of tensors that are ranked together."""
    size = sum(score.size for score in ranked)
    need = round(check_sparsity(sparsity) * size)
    if masks is not None:
        need -= size - sum(map(np.count_nonzero, masks))
    # Every kernel of a model has the same pattern, or none where it has no axis for it.
    pattern = next((layout.pattern for layout in layouts if layout), None)
    if isinstance(pattern, NofM):
        complete = sparsity >= pattern.sparsity - _CLOSE
        if need > 0 or complete:
            return _groups_die(ranked, need, complete, masks, layouts, values)
    if need <= 0:
        return [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    if isinstance(pattern, Blocks):
        return _blocks_die(ranked, need, masks, layouts, values)
    among = None if masks is None else joined(masks)
    return _without(lowest(joined(ranked), need, among), masks, ranked)


def _groups_die(
    ranked: Sequence[np.ndarray],
    need: int,
    complete: bool,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Lets `need` entries die, those first that an N:M pattern wants dead.

    Args:
        ranked: scores of each tensor.
        need: how many more shall be dead.
        complete: whether all that the pattern wants dead dies, were it more than `need`.
        masks: the masks so far.
        layouts: the pattern of each tensor.
        values: the tensors.
    """
    alive = [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    rows = zip(ranked, alive, layouts, strict=True)
    want = joined([wanted(score, mask, layout) for score, mask, layout in rows])
    score, left = joined(ranked), joined(alive).copy()
    # What is zero already must not come back for the sake of a pattern laid on it later.
    zero = joined([value == 0 for value in values])
    dead = [np.empty(0, np.int64)]
    for kind in (zero & want, zero & ~want, want & ~zero, ~want & ~zero):
        chosen = lowest(score, need, kind & left)
        dead.append(chosen)
        need -= chosen.size
    if complete:
        dead.append(np.flatnonzero(want & left))
    return _without(np.concatenate(dead), masks, ranked)


def _blocks_die(
    ranked: Sequence[np.ndarray],
    need: int,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
) -> list[np.ndarray]:
    alive = [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    units = [
        pooled(score, value == 0, mask, layout)
        for score, value, mask, layout in zip(ranked, values, alive, layouts, strict=True)
        if layout is not None
    ]
    dead = lowest_blocks(
        np.concatenate([unit.score for unit in units]),
        np.concatenate([unit.alive for unit in units]),
        need,
    )
    parts = np.split(dead, np.cumsum([unit.score.size for unit in units])[:-1])
    return [mask & ~unit.spread(part) for mask, unit, part in zip(alive, units, parts, strict=True)]


def _without(
    dead: np.ndarray, masks: Sequence[np.ndarray] | None, ranked: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The masks, less the entries at flat positions over all of them."""
    alive = np.ones(sum(score.size for score in ranked), bool)
    if masks is not None:
        alive = joined(masks).copy()
    alive[dead] = False
    parts = np.split(alive, np.cumsum([score.size for score in ranked])[:-1])
    return [part.reshape(score.shape) for part, score in zip(parts, ranked, strict=True)]
