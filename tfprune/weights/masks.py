"""Exact masks: which entries of weight tensors live. Pure NumPy; True lives, False is dead.

Every mask is cut by one rule: score each entry, let exactly as many of the lowest die as the
sparsity asks, and settle ties by position, so that the same weights always give the same mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from tfprune.errors import UsageError
from tfprune.training.schedule import check_sparsity
from tfprune.weights.lowest import joined, lowest, lowest_blocks
from tfprune.weights.patterns import Blocks, Layout, NofM, pooled, wanted

Score: TypeAlias = Callable[[np.ndarray], np.ndarray]
Select: TypeAlias = Literal["magnitude", "random"] | Score


class Masks(NamedTuple):
    """Masks cut with a floor.

    Attributes:
        masks: bool arrays, one a tensor, True where it lives.
        floored: the places of the tensors that would have kept fewer entries without the floor.
    """

    masks: list[np.ndarray]
    floored: list[int]


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


def layer_cut(
    values: Sequence[np.ndarray],
    sparsity: float | Sequence[float],
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
    numbers: Sequence[int] | None = None,
    min_kept: int = 0,
) -> Masks:
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
        min_kept: how many entries of each tensor live at least, those of the highest scores, even
            if fewer die for it than the sparsity asks; of blocks, as many whole ones as hold them.

    Returns:
        One bool array a tensor, as of `magnitude_mask`. With blocks the count is as near as
        whole blocks come; at the sparsity of an N:M pattern each of its groups keeps at most N.

    Raises:
        UsageError: a sparsity outside 0 to 1, or scores of another shape.
    """
    shares = list(sparsity) if isinstance(sparsity, Sequence) else [sparsity] * len(values)
    old: Sequence[np.ndarray | None] = masks if masks else [None] * len(values)
    grids = layouts or [None] * len(values)
    found, floored = [], []
    rows = zip(numbers or range(len(values)), values, shares, old, grids, strict=True)
    for place, (index, value, share, mask, layout) in enumerate(rows):
        score = scores(value, select, seed, index)
        before = None if mask is None else [mask]
        cut = _floored([score], share, before, [layout], [value], min_kept)
        found += cut.masks
        floored += [place] * len(cut.floored)
    return Masks(found, floored)


def layer_masks(
    values: Sequence[np.ndarray],
    sparsity: float | Sequence[float],
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
) -> list[np.ndarray]:
    """The masks of `layer_cut` without a floor: a tensor may die."""
    return layer_cut(values, sparsity, masks, select, seed, layouts).masks


def global_cut(
    values: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
    min_kept: int = 0,
) -> Masks:
    """Masks all tensors together: one ranking, so layers end at different sparsities.

    Args:
        values: weight tensors.
        sparsity: share of dead entries over all tensors together, 0 to 1.
        masks: the masks so far, one a tensor; they nest.
        select: which die, see `scores`.
        seed: seed of the random choice.
        layouts: the pattern of each tensor, None for one without.
        min_kept: how many entries of each tensor live at least, those of the highest scores;
            others die in their place.

    Returns:
        One bool array a tensor; over all of them exactly `round(sparsity * total size)` entries
        are dead, or those of `masks` if these are more already; with patterns as of
        `layer_cut`.

    Raises:
        UsageError: a sparsity outside 0 to 1, or scores of another shape.
    """
    ranked = [scores(value, select, seed, index) for index, value in enumerate(values)]
    grids = layouts or [None] * len(values)
    return _floored(ranked, sparsity, masks or None, grids, values, min_kept)


def global_masks(
    values: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
) -> list[np.ndarray]:
    """The masks of `global_cut` without a floor: a tensor may die."""
    return global_cut(values, sparsity, masks, select, seed, layouts).masks


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


def _floored(
    ranked: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
    min_kept: int,
) -> Masks:
    """Cuts as `_cut`, and again with the best entries of each tensor spared where it must be."""
    cut = _cut(ranked, sparsity, masks, layouts, values)
    had = [score.size for score in ranked] if masks is None else _alive(masks)
    least = [min(min_kept, count) for count in had]
    floored = [i for i, count in enumerate(_alive(cut)) if count < least[i]]
    if not floored:
        return Masks(cut, [])
    before = [np.ones(score.shape, bool) for score in ranked] if masks is None else masks
    rows = zip(ranked, values, before, layouts, least, strict=True)
    spared = [_best(*row) for row in rows]
    return Masks(_cut(ranked, sparsity, masks, layouts, values, spared), floored)


def _alive(masks: Sequence[np.ndarray]) -> list[int]:
    return [int(np.count_nonzero(mask)) for mask in masks]


def _best(
    score: np.ndarray, value: np.ndarray, alive: np.ndarray, layout: Layout | None, count: int
) -> np.ndarray:
    """Where the highest scores are that live: `count` of them, or the blocks that hold so many."""
    if layout is not None and isinstance(layout.pattern, Blocks):
        units = pooled(score, value == 0, alive, layout)
        # Ties die by position, so the last of them is the one that stays.
        order = np.argsort(units.score, kind="stable")[::-1]
        order = order[units.alive[order] > 0]
        held = np.cumsum(units.alive[order])
        chosen = np.zeros(units.score.shape, bool)
        chosen[order[: int(np.searchsorted(held, count)) + 1 if count else 0]] = True
        return alive & units.spread(chosen)
    # What an N:M pattern wants dead cannot be spared; each of its groups leaves N.
    among = np.flatnonzero(alive & ~wanted(score, alive, layout))
    flat = np.zeros(score.size, bool)
    order = np.argsort(score.ravel()[among], kind="stable")[::-1]
    flat[among[order[:count]]] = True
    return flat.reshape(score.shape)


def _cut(
    ranked: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
    spared: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Cuts the masks of tensors that are ranked together; none of `spared` dies."""
    size = sum(score.size for score in ranked)
    need = round(check_sparsity(sparsity) * size)
    if masks is not None:
        need -= size - sum(map(np.count_nonzero, masks))
    # Every kernel of a model has the same pattern, or none where it has no axis for it.
    pattern = next((layout.pattern for layout in layouts if layout), None)
    if isinstance(pattern, NofM):
        complete = sparsity >= pattern.sparsity - _CLOSE
        if need > 0 or complete:
            return _groups_die(ranked, need, complete, masks, layouts, values, spared)
    if need <= 0:
        return [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    if isinstance(pattern, Blocks):
        return _blocks_die(ranked, need, masks, layouts, values, spared)
    among = None if masks is None else joined(masks)
    if spared is not None:
        among = ~joined(spared) if among is None else among & ~joined(spared)
    return _without(lowest(joined(ranked), need, among), masks, ranked)


def _groups_die(
    ranked: Sequence[np.ndarray],
    need: int,
    complete: bool,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
    spared: Sequence[np.ndarray] | None,
) -> list[np.ndarray]:
    """Lets `need` entries die, those first that an N:M pattern wants dead.

    Args:
        ranked: scores of each tensor.
        need: how many more shall be dead.
        complete: whether all that the pattern wants dead dies, were it more than `need`.
        masks: the masks so far.
        layouts: the pattern of each tensor.
        values: the tensors.
        spared: entries that do not die.
    """
    alive = [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    rows = zip(ranked, alive, layouts, strict=True)
    want = joined([wanted(score, mask, layout) for score, mask, layout in rows])
    score, left = joined(ranked), joined(alive).copy()
    if spared is not None:
        left &= ~joined(spared)
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
    spared: Sequence[np.ndarray] | None,
) -> list[np.ndarray]:
    alive = [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    safe = [np.zeros(mask.shape, bool) for mask in alive] if spared is None else spared
    units = [
        # A block that is spared has no entry that may die.
        pooled(score, value == 0, mask & ~kept, layout)
        for score, value, mask, kept, layout in zip(
            ranked, values, alive, safe, layouts, strict=True
        )
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
