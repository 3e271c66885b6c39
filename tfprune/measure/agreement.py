"""How alike two models answer."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from tfprune.errors import UsageError

ComparedAs = Literal["classes", "sides", "values"]
# Above it nearly every answer is the same, and a constant one would agree as well.
MOST_COMMON = 0.95
_THRESHOLD = 0.5
# Columns of logits have ranges alike; those of numbers may have units of their own.
_SAME_UNIT = 20.0
_CONSTANT = 1e-6
# As a share of the range: where outputs vary less, R² would be one of rounding errors.
_LEAST_SPREAD = 0.05


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How alike two models answer, in one output.

    Attributes:
        share: 0 to 1; what it is the share of says `compared_as`.
        compared_as: What was compared. `"classes"`: the share of examples (or pixels, or steps)
            with the same largest output. `"sides"`: the share of sigmoid outputs on the same side
            of 0.5. `"values"`: the share of the expected outputs' variance that the others
            explain, R², not below 0; of several columns the lowest.
        largest_difference: Largest absolute difference, in the outputs' unit.
        mean_difference: Mean absolute difference, in the outputs' unit.
        off: The largest difference as a share of the range that the expected outputs cover.
        bounded: Whether outputs are probabilities, whose range is known to be 0 to 1.
        correlation: Pearson's, over all outputs; None where one of the two is constant.
        commonest: Share of the most frequent class or side among the expected ones; None where
            outputs are numbers. Near 1 a comparison of classes could hardly disagree.
    """

    share: float
    compared_as: ComparedAs
    largest_difference: float
    mean_difference: float
    off: float
    bounded: bool
    correlation: float | None
    commonest: float | None


def agreement(outputs: np.ndarray, expected: np.ndarray, *, sigmoid: bool = False) -> Agreement:
    """Compares a model's outputs with those that are expected on the same examples.

    Classes or sides are compared where they vary: when more than 95% of the expected ones are the
    same, a model that gives nothing else would agree by chance, and values are compared instead.
    Outputs that are neither probabilities nor sigmoids may be logits or numbers, which nothing
    tells apart for sure. The lower of both shares counts for them; a single output, and columns
    whose ranges differ twentyfold, are numbers.

    Example:
        ```python
        agreement(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.8, 0.2], [0.4, 0.6]])).share
        ```

    Args:
        outputs: Shape `(n, ...)`; the last axis holds the classes or columns.
        expected: Same shape.
        sigmoid: Whether each output is a sigmoid's, a probability of its own.

    Raises:
        UsageError: The shapes differ.
    """
    if np.shape(outputs) != np.shape(expected):
        raise UsageError(
            f"outputs of shapes {np.shape(outputs)} and {np.shape(expected)} cannot be compared"
        )
    columns = np.shape(expected)[-1] if np.ndim(expected) > 1 else 1
    found, wanted = (np.asarray(y, np.float64).reshape(-1, columns) for y in (outputs, expected))
    probabilities = not sigmoid and columns > 1 and are_probabilities(wanted)
    # A probability's range is known, however few of its values were seen.
    extents = np.ones(columns) if sigmoid or probabilities else _extents(wanted)
    share, compared_as, commonest = _share(found, wanted, extents, sigmoid, probabilities)
    differences = np.abs(found - wanted)
    extent = float(np.ptp(wanted)) or float(np.abs(wanted).max()) or 1.0
    return Agreement(
        share=share,
        compared_as=compared_as,
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        off=float(differences.max()) / extent,
        bounded=sigmoid or probabilities,
        correlation=_correlation(found.ravel(), wanted.ravel()),
        commonest=commonest,
    )


def _share(
    found: np.ndarray,
    wanted: np.ndarray,
    extents: np.ndarray,
    sigmoid: bool,
    probabilities: bool,
) -> tuple[float, ComparedAs, float | None]:
    if sigmoid:
        kind: ComparedAs = "sides"
        sides = wanted > _THRESHOLD
        commonest = float(max(sides.mean(), 1 - sides.mean()))
        same = float(np.mean((found > _THRESHOLD) == sides))
    elif probabilities or _may_be_logits(extents):
        kind = "classes"
        classes = wanted.argmax(axis=1)
        commonest = float(np.bincount(classes).max() / len(classes))
        same = float(np.mean(found.argmax(axis=1) == classes))
    else:
        return float(_explained(found, wanted, extents).min()), "values", None
    if commonest > MOST_COMMON:
        return float(_explained(found, wanted, extents).min()), "values", commonest
    if sigmoid or probabilities:
        return same, kind, commonest
    together = _explained(found, wanted, extents, pooled=True)
    return min((same, kind, commonest), (float(together), "values", commonest), key=lambda x: x[0])


def _explained(
    found: np.ndarray, wanted: np.ndarray, extents: np.ndarray, pooled: bool = False
) -> np.ndarray:
    """R² of each column, or of all together, not below 0."""
    errors = np.square(found - wanted).mean(axis=0)
    # What hardly varies has no variance to explain: a small error must not count as a whole one.
    variances = np.maximum(wanted.var(axis=0), np.square(_LEAST_SPREAD * extents))
    if pooled:
        errors, variances = errors.sum(), variances.sum()
    # NaN explains nothing.
    return np.nan_to_num(np.clip(1 - errors / variances, 0, 1), nan=0.0)


def are_probabilities(rows: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Whether every row is non-negative and sums to one."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= tolerance).all())


def _extents(rows: np.ndarray) -> np.ndarray:
    """The range of each column; that of all for a column which is constant."""
    extents = np.ptp(rows, axis=0)
    everything = float(np.ptp(rows)) or float(np.abs(rows).max()) or 1.0
    return np.where(extents > _CONSTANT * everything, extents, everything)


def _may_be_logits(extents: np.ndarray) -> bool:
    return len(extents) > 1 and extents.max() <= _SAME_UNIT * extents.min()


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    spread = a.std() * b.std()
    # NaN is not larger either.
    if not spread > 0:
        return None
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread)
