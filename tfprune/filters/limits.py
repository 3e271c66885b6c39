"""What a plan may not touch: frozen units, layers left alone, and sizes that stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from tfprune.errors import UsageError, did_you_mean
from tfprune.filters.groups import ChannelGroup, ChannelGroups
from tfprune.model.graph import named_layers, path_matches

Names = str | Iterable[str]


class Limits:
    """How far the groups of a model may shrink.

    Attributes:
        groups: the channel groups.
        fixed: bool (groups.unit_count,), the units that must stay: the frozen ones, and those of
            excluded layers.

    Args:
        groups: the channel groups of a model.
        round_to: sizes become multiples of this where they shrink; runtimes work in tiles.
        minimum: channels that each group keeps at least, where it has so many.
        exclude: layers that keep all their channels: names, paths, globs of these such as
            `"conv*"`, or the name of a nested model.

    Raises:
        UsageError: a number below 1, or a name that no layer with channels of its own has.
    """

    def __init__(
        self, groups: ChannelGroups, round_to: int = 1, minimum: int = 1, exclude: Names = ()
    ) -> None:
        for name, value in (("round_to", round_to), ("minimum", minimum)):
            if value < 1:
                raise UsageError(f"{name}={value} is not a number of channels: give 1 or more")
        patterns = [exclude] if isinstance(exclude, str) else list(exclude)
        self.groups = groups
        self._round_to, self._minimum = round_to, minimum
        self.fixed = groups.fixed.copy()
        for pattern in patterns:
            self.fixed[_units(groups, pattern)] = True
        given = {"round_to": round_to, "minimum": minimum, "exclude": patterns}
        self._given = [f"{key}={value}" for key, value in given.items() if value not in (1, [])]

    @property
    def removable(self) -> np.ndarray:
        """Int, the units that may go, group by group."""
        free = [group.units[self.free(group)] for group in self.groups]
        return np.concatenate([np.empty(0, int), *free])

    def free(self, group: ChannelGroup) -> np.ndarray:
        """Bool (group.size,), the units of a group that may go."""
        return ~self.fixed[group.units]

    def best(self, scores: np.ndarray, wanted: Callable[[ChannelGroup], int]) -> np.ndarray:
        """Which units live when every group shrinks as far as it may.

        Args:
            scores: float (groups.unit_count,); the highest stay.
            wanted: how many units a group should keep; more stay where they must.

        Returns:
            bool (groups.unit_count,).
        """
        alive = np.ones(self.groups.unit_count, bool)
        for group in self.groups:
            least = max(self._minimum, wanted(group))
            count = min(group.size, math.ceil(least / self._round_to) * self._round_to)
            # What must stay comes first, whatever it scores.
            order = np.lexsort((-scores[group.units], self.free(group)))
            alive[group.units[order[count:]]] = False
        # More of a group may have to stay than it wants to keep.
        return alive | self.fixed

    def __str__(self) -> str:
        """What keeps channels, for errors."""
        count = len(self.groups.frozen)
        frozen = f"{count} layer{' is' if count == 1 else 's are'} frozen (see `tfprune inspect`)"
        if not count:
            frozen = "each group keeps a channel at least"
        return " and ".join([frozen, *self._given])


def _units(groups: ChannelGroups, pattern: str) -> np.ndarray:
    """The units of the layers that a name or glob means."""
    found = [units for path, units in groups.producers.items() if path_matches(path, pattern)]
    if found:
        return np.concatenate(found)
    if any(path_matches(path, pattern) for path in named_layers(groups.model)):
        raise UsageError(
            f"exclude: {pattern!r} names no layer that makes channels: name the one before it that "
            "does"
        )
    hint = did_you_mean(pattern, groups.producers, "see `tfprune inspect`")
    raise UsageError(f"exclude: model {groups.model.name!r} has no layer {pattern!r}: {hint}")
