"""What a model would cost with only some of its channels, without rebuilding it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import keras
import numpy as np

from tfprune.filters.groups import ChannelGroups
from tfprune.graph import kernel_uses


class Cost:
    """Multiply-accumulates and parameters as functions of the units that live."""

    def __init__(self, groups: ChannelGroups) -> None:
        self._groups = groups
        self._weights = groups.model.weights

    @cached_property
    def _uses(self) -> list[tuple[keras.Variable, int]]:
        # Only when asked for: a model of open sizes has parameters, but no count of these.
        return [(use.kernel, use.positions) for use in kernel_uses(self._groups.model)]

    def macs(self, alive: np.ndarray) -> int:
        """Multiply-accumulates of one example with the units `alive`, bool (unit_count,)."""
        shapes = self._shapes((kernel for kernel, _ in self._uses), alive)
        return sum(
            positions * math.prod(shape)
            for (_, positions), shape in zip(self._uses, shapes, strict=True)
        )

    def params(self, alive: np.ndarray) -> int:
        """Parameters, statistics included, with the units `alive`, bool (unit_count,)."""
        return sum(math.prod(shape) for shape in self._shapes(self._weights, alive))

    def _shapes(self, variables: Iterable[keras.Variable], alive: np.ndarray) -> list[list[int]]:
        slices = self._groups.trace.slices
        found = []
        for variable in variables:
            shape = list(variable.shape)
            for axis in range(len(shape)):
                entry = slices.get((id(variable), axis))
                if entry is not None:
                    shape[axis] = int(self._groups.kept(alive, entry.ids).sum())
            found.append(shape)
        return found
