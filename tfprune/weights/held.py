"""Masks put on weights for the time of a training, and taken off again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from tfprune.model.constraints import unlink
from tfprune.weights.constraint import MaskConstraint


class HeldMasks:
    """A mask on each of some weights, every entry alive at first.

    Args:
        variables: the weights; each keeps the constraint it has, below the mask.
    """

    def __init__(self, variables: Iterable[keras.Variable] = ()) -> None:
        self._held: list[tuple[keras.Variable, MaskConstraint]] = []
        for variable in variables:
            variable.constraint = MaskConstraint(variable.shape, variable.constraint)
            self._held.append((variable, variable.constraint))

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[tuple[keras.Variable, MaskConstraint]]:
        return iter(self._held)

    def values(self) -> Iterator[np.ndarray]:
        """The weights as arrays, in their order."""
        return (ops.convert_to_numpy(variable) for variable, _ in self._held)

    def assign(self, masks: Sequence[np.ndarray]) -> None:
        """Changes all masks, and sets what is dead to zero.

        Args:
            masks: bool arrays, one a weight, True where it lives.
        """
        for (_, constraint), mask in zip(self._held, masks, strict=True):
            constraint.mask.assign(mask)
        self.apply()

    def change(self, index: int, value: np.ndarray, mask: np.ndarray) -> None:
        """Changes one mask, and sets what is dead to zero.

        Args:
            index: which weight.
            value: what the weight is now; read already, it saves the time to project it.
            mask: bool array, True where it lives.
        """
        variable, constraint = self._held[index]
        constraint.mask.assign(mask)
        variable.assign(_masked(value, mask))

    def apply(self) -> None:
        """Sets what is dead to zero."""
        for variable, constraint in self._held:
            variable.assign(constraint.project(variable))

    def release(self) -> None:
        """Takes the masks off; the weights have the constraints they had before."""
        for variable, constraint in self._held:
            # Others may have put a constraint of theirs above it since.
            unlink(variable, constraint)
        self._held = []


def _masked(value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The weights, +0 where they are dead and bit for bit where they live."""
    # `where` takes ten times as long: the processor guesses at every entry which side it takes.
    integer = f"int{8 * value.dtype.itemsize}"
    ones = np.negative(mask.view(np.int8), dtype=integer)
    return (np.ascontiguousarray(value).view(integer) & ones).view(value.dtype)
