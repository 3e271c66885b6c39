"""The lowest of many scores, exactly as many as asked, without sorting them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Odd, and prime to the widths that layers have, so that a sample runs through all channels.
_STRIDE = 61
_SMALLEST_SAMPLE = 64


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
        score: float array of one axis, without NaN, a block an entry; `-inf` where a block is
            zero throughout.
        size: int array, how many living entries each block has.
        need: how many entries.

    Returns:
        A bool array, True for the chosen. Together they are as near to `need` as the ranking
        comes, and rather above than below.
    """
    order = np.argsort(score, kind="stable")
    order = order[size[order] > 0]
    held = np.cumsum(size[order])
    count = int(np.searchsorted(held, need))
    if count < held.size:
        before = held[count - 1] if count else 0
        count += int(held[count] - need <= need - before)
    # All that an earlier cut left at zero, which need not be the nearest once it is in a row.
    zeros = int(np.count_nonzero(np.isneginf(score[order])))
    if zeros > count and held[zeros - 1] - need <= size.max() / 2:
        count = zeros
    chosen = np.zeros(score.shape, bool)
    chosen[order[:count]] = True
    return chosen


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
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
