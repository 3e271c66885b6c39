"""The numbers that a file stores, as it stores them: sparsity and size floors start here."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """One weight tensor of a model or an artifact.

    Attributes:
        name: What the file calls it.
        size: How many numbers it has, zeros included, however it is stored.
        bits: Bits of one stored number.
        living: The stored values that do not stand for zero, shape `(nonzero,)`, in the dtype of
            the file; those narrower than a byte are widened to int8.
    """

    name: str
    size: int
    bits: int
    living: np.ndarray

    @property
    def density(self) -> float:
        """Share of non-zeros, 0 to 1; 0 where there is no number."""
        return len(self.living) / self.size if self.size else 0.0


def stored(name: str, values: np.ndarray) -> StoredWeights:
    """A tensor that is stored densely and where 0 stands for zero.

    Args:
        name: What the file calls it.
        values: Any shape.
    """
    return StoredWeights(name, values.size, 8 * values.itemsize, values[values != 0])
