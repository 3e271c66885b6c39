"""Exact masks: which entries of weight tensors live. Pure NumPy; True lives, False is dead.

Every mask is cut by one rule: score each entry, let exactly as many of the lowest die as the
sparsity asks, and settle ties by position, so that the same weights always give the same mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from tfprune.errors import UsageError
from tfprune.training.schedule import check_sparsity
from tfprune.vocabulary import Selection
from tfprune.weights.patterns import Blocks, Layout, NofM, score_blocks, surplus

Score: TypeAlias = Callable[[np.ndarray], np.ndarray]
Select: TypeAlias = Selection | Score

# Odd, and prime to the widths that layers have, so that a sample runs through all channels.
_STRIDE = 61
_SMALLEST_SAMPLE = 64


class Masks(NamedTuple):
    """Masks of several tensors.

    Attributes:
        masks: bool arrays, one for each tensor, True where it lives.
        floored: the places of the tensors that would have kept fewer entries than `min_kept`.
    """

    masks: list[np.ndarray]
    floored: list[int]


def magnitude_mask(
    value: np.ndarray, sparsity: float, mask: np.ndarray | None = None
) -> np.ndarray:
    """Masks the smallest weights of one tensor.

    Example:
        ```python
        magnitude_mask(np.array([0.1, -3.0, 2.0, 0.0]), 0.5)
        # array([False,  True,  True, False])
        ```

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
    return mask_lowest(scores(value), sparsity, mask)


def layer_masks(
    values: Sequence[np.ndarray],
    sparsity: float | Sequence[float],
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
    min_kept: int = 0,
    numbers: Sequence[int] | None = None,
) -> Masks:
    """Masks each tensor on its own.

    Example:
        ```python
        layer_masks([np.array([1.0, 2.0]), np.array([3.0, 4.0])], 0.5).masks
        # [array([False,  True]), array([False,  True])]
        ```

    Args:
        values: weight tensors.
        sparsity: share of dead entries in each tensor, 0 to 1: one for all, or one for each.
        masks: the masks so far, one for each tensor; they nest.
        select: which die, see `scores`.
        seed: seed of the random choice.
        layouts: the pattern of each tensor, None for one without.
        min_kept: how many entries of each tensor live at least, those of the highest scores, even
            if fewer die for it than the sparsity asks; of blocks, as many whole ones as hold them.
        numbers: which tensors of the model they are, for the random choice; 0, 1, ... if not
            given.

    Returns:
        The masks, as of `magnitude_mask`. With blocks the count is as near as whole blocks come;
        at the sparsity of an N:M pattern each of its groups keeps at most N.

    Raises:
        UsageError: a sparsity outside 0 to 1, or scores of another shape.
    """
    count = len(values)
    sparsities = list(sparsity) if isinstance(sparsity, Sequence) else [sparsity] * count
    result = Masks([], [])
    for place, number in enumerate(numbers or range(count)):
        cut = _cut_with_floor(
            [scores(values[place], select, seed, number)],
            sparsities[place],
            [masks[place]] if masks else None,
            [layouts[place] if layouts else None],
            [values[place]],
            min_kept,
        )
        result.masks.extend(cut.masks)
        result.floored.extend([place] * len(cut.floored))
    return result


def global_masks(
    values: Sequence[np.ndarray],
    sparsity: float,
    masks: Sequence[np.ndarray] | None = None,
    select: Select = "magnitude",
    seed: int = 0,
    layouts: Sequence[Layout | None] | None = None,
    min_kept: int = 0,
) -> Masks:
    """Masks all tensors together: one ranking, so layers end at different sparsities.

    Example:
        ```python
        global_masks([np.array([1.0, 2.0]), np.array([3.0, 4.0])], 0.5).masks
        # [array([False, False]), array([ True,  True])]
        ```

    Args:
        values: weight tensors.
        sparsity: share of dead entries over all tensors together, 0 to 1.
        masks: the masks so far, one for each tensor; they nest.
        select: which die, see `scores`.
        seed: seed of the random choice.
        layouts: the pattern of each tensor, None for one without.
        min_kept: how many entries of each tensor live at least, those of the highest scores;
            others die in their place.

    Returns:
        The masks; over all of them exactly `round(sparsity * total size)` entries are dead, or
        those of `masks` if these are more already; with patterns as of `layer_masks`.

    Raises:
        UsageError: a sparsity outside 0 to 1, or scores of another shape.
    """
    ranked = [scores(value, select, seed, number) for number, value in enumerate(values)]
    grids = layouts or [None] * len(values)
    return _cut_with_floor(ranked, sparsity, masks or None, grids, values, min_kept)


def scores(
    value: np.ndarray, select: Select = "magnitude", seed: int = 0, number: int = 0
) -> np.ndarray:
    """Scores each weight; the lowest die first.

    An exact zero scores lowest whatever the selection, so that the mask of a model trained
    before can be read back from its zeros. A NaN scores highest.

    Args:
        value: weights of any shape and float dtype.
        select: "magnitude" scores by absolute value, "random" by a seeded draw; a function from
            `value` to an array of its shape scores by any real numbers.
        seed: seed of the draw.
        number: which tensor of the model it is; tensors of one shape draw differently.

    Returns:
        A float array of the shape of `value`, without NaN.

    Raises:
        UsageError: a score function gives another shape, or no numbers.
    """
    if select == "random":
        # 1 - [0, 1) is never 0, so only a weight that is zero scores 0.
        drawn = 1.0 - np.random.default_rng((seed, number)).random(value.shape)
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


def mask_lowest(score: np.ndarray, sparsity: float, mask: np.ndarray | None = None) -> np.ndarray:
    """Masks the lowest scores, exactly as many as the sparsity asks.

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


def masked(value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Applies a mask: +0 where a weight is dead, and bit for bit the weight where it lives.

    Args:
        value: weights of any shape and float dtype.
        mask: bool array of the same shape.

    Returns:
        A new array of the shape and dtype of `value`.
    """
    # `where` takes ten times as long: the processor guesses at every entry which side it takes.
    integer = f"int{8 * value.dtype.itemsize}"
    ones = np.negative(mask.view(np.int8), dtype=integer)
    return (np.ascontiguousarray(value).view(integer) & ones).view(value.dtype)


def lowest(score: np.ndarray, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """Finds the lowest scores; ties are settled by position.

    Takes time in proportion to the scores, and little of it when few are asked for: a threshold
    guessed from a sample leaves a few candidates, and only these are partitioned.

    Args:
        score: float array of one axis, without NaN.
        count: how many; all of them if there are fewer.
        among: bool array of the same length: only these. All if not given.

    Returns:
        Their positions, int64, in no order.
    """
    if count <= 0:
        return np.empty(0, np.int64)
    total = score.size if among is None else int(np.count_nonzero(among))
    if count >= total:
        return _positions(score, among)
    near = _candidates(score, count, total, among)
    pool = score[near]
    threshold = np.partition(pool, count - 1)[count - 1]
    below = near[pool < threshold]
    # A plain `<=` would take every tie with the threshold, and so too many.
    ties = near[pool == threshold][: count - below.size]
    return np.concatenate([below, ties])


def lowest_blocks(score: np.ndarray, size: np.ndarray, need: int) -> np.ndarray:
    """Finds the blocks of lowest score that hold about as many entries as asked.

    Args:
        score: float array of one axis, without NaN, an entry for each block; `-inf` where a
            block is zero throughout.
        size: int array, how many living entries each block has.
        need: how many entries.

    Returns:
        A bool array, True for the chosen. Together they are as near to `need` as the ranking
        comes, and rather above than below.
    """
    order = np.argsort(score, kind="stable")
    order = order[size[order] > 0]
    covered = np.cumsum(size[order])
    count = int(np.searchsorted(covered, need))
    if count < covered.size:
        before = covered[count - 1] if count else 0
        count += int(covered[count] - need <= need - before)
    # All that an earlier cut left at zero, which need not be the nearest once it is in a row.
    zeros = int(np.count_nonzero(np.isneginf(score[order])))
    if zeros > count and covered[zeros - 1] - need <= size.max() / 2:
        count = zeros
    chosen = np.zeros(score.shape, bool)
    chosen[order[:count]] = True
    return chosen


def _cut_with_floor(
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
        blocks = score_blocks(score, value == 0, alive, layout)
        # Ties die by position, so the last of them is the one that stays.
        order = np.argsort(blocks.score, kind="stable")[::-1]
        order = order[blocks.alive[order] > 0]
        covered = np.cumsum(blocks.alive[order])
        chosen = np.zeros(blocks.score.shape, bool)
        chosen[order[: int(np.searchsorted(covered, count)) + 1 if count else 0]] = True
        return alive & blocks.spread(chosen)
    # What an N:M pattern has no room for cannot be spared; each of its groups leaves N.
    among = np.flatnonzero(alive & ~surplus(score, alive, layout))
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
        complete = pattern.holds_at(sparsity)
        if need > 0 or complete:
            return _groups_die(ranked, need, complete, masks, layouts, values, spared)
    if need <= 0:
        return [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    if isinstance(pattern, Blocks):
        return _blocks_die(ranked, need, masks, layouts, values, spared)
    among = None if masks is None else _joined(masks)
    if spared is not None:
        among = ~_joined(spared) if among is None else among & ~_joined(spared)
    return _killed(lowest(_joined(ranked), need, among), masks, ranked)


def _groups_die(
    ranked: Sequence[np.ndarray],
    need: int,
    complete: bool,
    masks: Sequence[np.ndarray] | None,
    layouts: Sequence[Layout | None],
    values: Sequence[np.ndarray],
    spared: Sequence[np.ndarray] | None,
) -> list[np.ndarray]:
    """Lets `need` entries die, those first that an N:M pattern has no room for.

    Args:
        ranked: scores of each tensor.
        need: how many more shall be dead.
        complete: whether all that the pattern has no room for dies, were it more than `need`.
        masks: the masks so far.
        layouts: the pattern of each tensor.
        values: the tensors.
        spared: entries that do not die.
    """
    alive = [np.ones(score.shape, bool) for score in ranked] if masks is None else list(masks)
    rows = zip(ranked, alive, layouts, strict=True)
    excess = _joined([surplus(score, mask, layout) for score, mask, layout in rows])
    score, left = _joined(ranked), _joined(alive).copy()
    if spared is not None:
        left &= ~_joined(spared)
    # What is zero already must not come back for the sake of a pattern laid on it later.
    zero = _joined([value == 0 for value in values])
    dead = [np.empty(0, np.int64)]
    for kind in (zero & excess, zero & ~excess, excess & ~zero, ~excess & ~zero):
        chosen = lowest(score, need, kind & left)
        dead.append(chosen)
        need -= chosen.size
    if complete:
        dead.append(np.flatnonzero(excess & left))
    return _killed(np.concatenate(dead), masks, ranked)


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
    blocks = [
        # A block that is spared has no entry that may die.
        score_blocks(score, value == 0, mask & ~kept, layout)
        for score, value, mask, kept, layout in zip(
            ranked, values, alive, safe, layouts, strict=True
        )
        if layout is not None
    ]
    dead = lowest_blocks(
        np.concatenate([block.score for block in blocks]),
        np.concatenate([block.alive for block in blocks]),
        need,
    )
    parts = np.split(dead, np.cumsum([block.score.size for block in blocks])[:-1])
    return [
        mask & ~block.spread(part) for mask, block, part in zip(alive, blocks, parts, strict=True)
    ]


def _killed(
    dead: np.ndarray, masks: Sequence[np.ndarray] | None, ranked: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The masks, less the entries at flat positions over all of them."""
    alive = np.ones(sum(score.size for score in ranked), bool)
    if masks is not None:
        alive = _joined(masks).copy()
    alive[dead] = False
    parts = np.split(alive, np.cumsum([score.size for score in ranked])[:-1])
    return [part.reshape(score.shape) for part, score in zip(parts, ranked, strict=True)]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One flat array of all parts; of a single one without a copy."""
    flat = [part.ravel() for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _candidates(score: np.ndarray, count: int, total: int, among: np.ndarray | None) -> np.ndarray:
    """Positions, in their order, that hold at least the `count` lowest."""
    sample = score[::_STRIDE] if among is None else score[::_STRIDE][among[::_STRIDE]]
    expected = sample.size * count / total
    # Four deviations above, so that the guess seldom falls short. When it does, all are taken.
    rank = int(expected + 4 * expected**0.5 + 4)
    if sample.size >= _SMALLEST_SAMPLE and rank < sample.size / 2:
        near = score <= np.partition(sample, rank)[rank]
        positions = np.flatnonzero(near if among is None else near & among)
        if positions.size >= count:
            return positions
    return _positions(score, among)


def _positions(score: np.ndarray, among: np.ndarray | None) -> np.ndarray:
    return np.arange(score.size) if among is None else np.flatnonzero(among)
