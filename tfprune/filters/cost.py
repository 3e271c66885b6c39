"""What a model would cost with only some of its channels, without rebuilding it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.groups import ChannelGroups
from tfprune.model.counting import MacCount, count_macs, describe_layers


class Cost:
    """Multiply-accumulates and parameters as functions of the units that live."""

    def __init__(self, groups: ChannelGroups) -> None:
        self._groups = groups
        self._weights = groups.model.weights

    @cached_property
    def _work(self) -> MacCount:
        # Only when asked for: a model of open sizes has parameters, but no count of these.
        return count_macs(self._groups.model)

    def macs(self, alive: np.ndarray) -> int:
        """Multiply-accumulates of one example with the units `alive`, bool (unit_count,).

        Raises:
            UsageError: a layer's cannot be counted, or a size is open.
        """
        if self._work.uncounted:
            raise UsageError(
                f"model {self._groups.model.name!r} has layers whose multiply-accumulates cannot "
                "be counted, so no share of them is known: "
                f"{describe_layers(self._work.uncounted)}; give params= or filters= as the target"
            )
        kernels = [use for use in self._work.uses if use.kernel is not None]
        shapes = self._shapes((use.kernel for use in kernels), alive)
        # Products of activations stay: what they multiply is frozen.
        products = sum(use.macs for use in self._work.uses if use.kernel is None)
        return products + sum(
            use.positions * math.prod(shape) for use, shape in zip(kernels, shapes, strict=True)
        )

    @property
    def counts_macs(self) -> bool:
        """Whether `macs` knows of all layers."""
        return not self._work.uncounted

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
