"""What may go from a model's channel groups, in which order, and what sizes are left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import keras
import numpy as np

from tfprune.devices.search import Ladder
from tfprune.filters import ChannelGroups, RemovalPlan
from tfprune.filters.limits import Limits, Names

# A weight and one of its axes.
Axis = tuple[keras.Variable, int]


class Removals:
    """Plans written as how many units of each group are gone, the least important first.

    Args:
        groups: the channel groups of a model.
        scores: float (groups.unit_count,), one a unit.
        round_to: sizes become multiples of this where they shrink.
        minimum: every group keeps at least so many units.
        exclude: layers that keep all their channels; see `Limits`.

    Raises:
        UsageError: a number is below 1, or a layer is unknown.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        scores: np.ndarray,
        *,
        round_to: int = 1,
        minimum: int = 1,
        exclude: Names = (),
    ) -> None:
        limits = Limits(groups, round_to, minimum, exclude)
        self.groups = groups
        self._order: list[np.ndarray] = []
        self.ladders: list[Ladder] = []
        for group in groups:
            free = group.units[limits.free(group)]
            free = free[np.argsort(scores[free], kind="stable")]
            sizes = group.size - np.arange(len(free) + 1)
            allowed = (sizes >= minimum) & (sizes % round_to == 0)
            allowed[0] = True
            self._order.append(free)
            kept = float(scores[group.units].sum() - scores[free].sum())
            gone = np.flatnonzero(allowed)
            self.ladders.append(
                Ladder(group.size, scores[free], max(0.0, kept), gone, len(group.layers))
            )

    def plan(self, gone: Sequence[int] | np.ndarray) -> RemovalPlan:
        """The plan where of each group so many units are gone, int (groups,)."""
        alive = np.ones(self.groups.unit_count, bool)
        for order, count in zip(self._order, gone, strict=True):
            alive[order[:count]] = False
        return RemovalPlan(self.groups, alive)

    def sizes(self, axes: Sequence[Axis]) -> Sizes:
        """Counts what is left along some axes of the model's weights."""
        return Sizes(self.groups, self._order, axes)


class Sizes:
    """How long axes of weights are, for many plans at once."""

    def __init__(
        self, groups: ChannelGroups, order: Sequence[np.ndarray], axes: Sequence[Axis]
    ) -> None:
        self._now = np.array([kernel.shape[axis] for kernel, axis in axes], int)
        self._order = order
        self._units = [
            groups.unit[entry.ids]
            if (entry := groups.trace.slices.get((id(kernel), axis)))
            else np.empty(0, int)
            for kernel, axis in axes
        ]
        self._unit_count = groups.unit_count

    @cached_property
    def _shrunk(self) -> list[np.ndarray]:
        """For each group, int (1 + removable, axes): by how much the axes shrink."""
        # A unit may lie several times on one axis, as after Flatten.
        often = np.zeros((len(self._units), self._unit_count), int)
        for axis, units in enumerate(self._units):
            np.add.at(often[axis], units, 1)
        return [
            np.concatenate([np.zeros((1, len(often)), int), often[:, order].T.cumsum(axis=0)])
            for order in self._order
        ]

    def __call__(self, gone: np.ndarray) -> np.ndarray:
        """Int (plans, axes), where of each group `gone`, int (plans, groups), units are gone."""
        found = np.repeat(self._now[None], len(gone), axis=0)
        for shrunk, column in zip(self._shrunk, gone.T, strict=True):
            found -= shrunk[column]
        return found
