"""Patterns that hardware can use: N of M along the input axis, and blocks.

A kernel is seen as matrices of inputs by outputs: one for Dense, one for each tap of a convolution.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tfprune.errors import UsageError
from tfprune.model.layer_table import Axes

# How far below the least sparsity of an N:M pattern a target still means the pattern.
_CLOSE = 1e-6


@dataclass(frozen=True)
class NofM:
    """Of each `m` consecutive inputs of an output, at most `n` live.

    Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks" (arXiv:2104.08378).
    """

    n: int
    m: int

    @property
    def sparsity(self) -> float:
        """The least sparsity at which the pattern holds throughout."""
        return 1 - self.n / self.m

    def holds_at(self, sparsity: float) -> bool:
        """Whether a target is high enough; one close to the least means it."""
        return sparsity >= self.sparsity - _CLOSE

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Blocks:
    """`inputs` by `outputs` entries live or die together."""

    inputs: int
    outputs: int


Pattern: TypeAlias = NofM | Blocks


class Layout(NamedTuple):
    """A pattern laid on the axes of one kernel."""

    pattern: Pattern
    axes: Axes


class BlockScores(NamedTuple):
    """The blocks of one kernel, as flat arrays."""

    score: np.ndarray
    alive: np.ndarray
    # From a bool for each block to a bool for each entry, in the shape of the kernel.
    spread: Callable[[np.ndarray], np.ndarray]


def parse(pattern: Any) -> Pattern | None:
    """Reads a pattern as users write it.

    Args:
        pattern: "2:4" for at most 2 of 4, (1, 4) for blocks of 1 input by 4 outputs, or None.

    Raises:
        UsageError: it is none of these.
    """
    if pattern is None:
        return None
    if isinstance(pattern, str) and (match := re.fullmatch(r"(\d+):(\d+)", pattern)):
        n, m = map(int, match.groups())
        if 0 < n < m:
            return NofM(n, m)
    sides = tuple(pattern) if isinstance(pattern, tuple | list) else ()
    if len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides):
        return Blocks(*sides)
    raise UsageError(
        f"pattern is {pattern!r}; give 'N:M' such as '2:4' for at most 2 living weights of 4, "
        "or the sides of a block such as (1, 4)"
    )


def layout_of(pattern: Pattern | None, axes: Axes) -> Layout | None:
    """Lays a pattern on a kernel; None for N:M where no output sums over the inputs."""
    if pattern is None or (isinstance(pattern, NofM) and not axes.summed):
        return None
    return Layout(pattern, axes)


def surplus(score: np.ndarray, alive: np.ndarray, layout: Layout | None) -> np.ndarray:
    """Finds the entries that an N:M pattern has no room for: the M - N lowest of each group.

    A last group of fewer than M entries keeps N too, as if it were filled up with zeros.

    Args:
        score: scores in the shape of the kernel, without NaN.
        alive: the mask so far; what is dead counts among the lowest.
        layout: an N:M pattern, or None, which has room for all.

    Returns:
        A bool array in the shape of the kernel.
    """
    if layout is None:
        return np.zeros(score.shape, bool)
    pattern = layout.pattern
    assert isinstance(pattern, NofM)
    # The living rank above the dead even where they score -inf.
    least = np.finfo(np.float64).min
    rank = np.where(alive, np.maximum(score.astype(np.float64), least), -np.inf)
    folded = _folded(rank, layout.axes).swapaxes(1, 2)
    kernels, outputs, inputs = folded.shape
    filled = np.pad(folded, ((0, 0), (0, 0), (0, -inputs % pattern.m)), constant_values=-np.inf)
    groups = filled.reshape(-1, pattern.m)
    worst = np.argsort(groups, axis=1, kind="stable")[:, : pattern.m - pattern.n]
    chosen = np.zeros(groups.shape, bool)
    np.put_along_axis(chosen, worst, True, axis=1)
    chosen = chosen.reshape(kernels, outputs, -1)[:, :, :inputs]
    return _unfolded(chosen.swapaxes(1, 2), score.shape, layout.axes)


def score_blocks(
    score: np.ndarray, zero: np.ndarray, alive: np.ndarray, layout: Layout
) -> BlockScores:
    """Scores the blocks of a kernel: each by the mean of its entries.

    Blocks at the edges are smaller where the sides do not divide.

    Args:
        score: scores in the shape of the kernel, without NaN.
        zero: where the kernel is exactly zero.
        alive: the mask so far.
        layout: a pattern of blocks.

    Returns:
        The blocks; one that is zero throughout scores `-inf`.
    """
    pattern = layout.pattern
    assert isinstance(pattern, Blocks)
    sides = (1, pattern.inputs, pattern.outputs)
    # Zeros score lowest of all, which would kill a block for a single one.
    plain = np.where(zero, 0.0, score.astype(np.float64))
    entries = _sums(_folded(np.ones(score.shape), layout.axes), sides)
    mean = _sums(_folded(plain, layout.axes), sides) / entries
    # Where infinities of both signs meet is NaN, which dies last.
    mean[np.isnan(mean)] = np.inf
    mean = np.maximum(mean, np.finfo(np.float64).min)
    mean[_sums(_folded(~zero, layout.axes), sides) == 0] = -np.inf
    shape, folded = score.shape, _folded(alive, layout.axes).shape

    def spread(blocks: np.ndarray) -> np.ndarray:
        whole = blocks.reshape(mean.shape)
        for axis, side in enumerate(sides):
            whole = whole.repeat(side, axis=axis)
        whole = whole[tuple(slice(size) for size in folded)]
        return _unfolded(whole, shape, layout.axes)

    living = _sums(_folded(alive.astype(np.int64), layout.axes), sides)
    return BlockScores(mean.ravel(), living.ravel(), spread)


def _sums(array: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    for axis, side in enumerate(sides):
        array = np.add.reduceat(
            array, np.arange(0, array.shape[axis], side), axis=axis, dtype=_wide(array)
        )
    return array


def _wide(array: np.ndarray) -> type:
    return np.float64 if array.dtype.kind == "f" else np.int64


def _order(rank: int, axes: Axes) -> tuple[int, ...]:
    return (*(i for i in range(rank) if i not in axes.inputs + axes.outputs), *axes[0], *axes[1])


def _folded(array: np.ndarray, axes: Axes) -> np.ndarray:
    """A kernel as matrices, in the shape (matrices, inputs, outputs)."""
    inputs, outputs = (
        int(np.prod([array.shape[i] for i in side], dtype=np.int64)) for side in axes[:2]
    )
    return array.transpose(_order(array.ndim, axes)).reshape(-1, inputs, outputs)


def _unfolded(folded: np.ndarray, shape: tuple[int, ...], axes: Axes) -> np.ndarray:
    order = _order(len(shape), axes)
    return folded.reshape([shape[i] for i in order]).transpose(np.argsort(order))
