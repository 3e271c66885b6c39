"""Removal plans: which channels go, while nothing has changed yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.errors import UsageError, did_you_mean
from tfprune.filters.groups import ChannelGroups
from tfprune.graph import named_layers


@dataclass(frozen=True, eq=False)
class RemovalPlan:
    """Which units of a model live.

    Attributes:
        groups: the channel groups that the plan speaks of.
        alive: bool (groups.unit_count,).
    """

    groups: ChannelGroups
    alive: np.ndarray

    @property
    def removed(self) -> dict[str, list[int]]:
        """Layer path to the indices of the filters that go, for layers that lose any."""
        gone = {
            path: np.flatnonzero(~self.alive[units]).tolist()
            for path, units in self.groups.producers.items()
        }
        return {path: indices for path, indices in gone.items() if indices}

    @property
    def inexact(self) -> dict[str, str]:
        """Layer to the reason why the slim model does not equal the masked one; empty if it does.

        Removing a channel is exact when the original with its readers' weights zeroed gives the
        same outputs.
        """
        return {
            remark.layer: remark.reason
            for remark in self.groups.trace.inexactness
            if not self.groups.kept(self.alive, remark.ids).all()
        }


def removing(groups: ChannelGroups, filters: Mapping[str, Sequence[int]]) -> RemovalPlan:
    """The plan that removes the named filters and the channels coupled with them.

    Args:
        groups: the channel groups of a model.
        filters: layer path to the indices of its filters or units that go.

    Raises:
        UsageError: a layer is unknown or frozen, an index is out of range, or nothing of a layer
            would be left.
    """
    alive = np.ones(groups.unit_count, bool)
    for path, indices in filters.items():
        units = groups.producers.get(path)
        if units is None:
            raise UsageError(_without_filters(groups, path))
        for index in indices:
            if not 0 <= index < len(units):
                raise UsageError(
                    f"layer {path!r} has filters 0..{len(units) - 1}: {index} is out of range"
                )
            if groups.fixed[units[index]]:
                raise UsageError(
                    f"filter {index} of layer {path!r} cannot go: {groups.frozen[path]}"
                )
        alive[units[list(indices)]] = False
    for path, units in groups.producers.items():
        if not alive[units].any():
            raise UsageError(f"nothing would be left of layer {path!r}: keep at least one filter")
    return RemovalPlan(groups, alive)


def _without_filters(groups: ChannelGroups, path: str) -> str:
    """Why a layer has no filters that one could name."""
    layer = named_layers(groups.model).get(path)
    if layer is None:
        hint = did_you_mean(path, groups.producers, "see `tfprune inspect`")
        return f"model {groups.model.name!r} has no layer {path!r}: {hint}"
    for remark in groups.trace.frozen:
        if remark.layer == layer.name and remark.reason.startswith(layer.name):
            return f"layer {path!r} has no filters that can go: {remark.reason}"
    return f"layer {path!r} makes no channels of its own: name the layer before it that does"


def removing_dead(groups: ChannelGroups) -> RemovalPlan:
    """The plan that removes every unit that contributes nothing; one a group always stays."""
    alive = ~groups.dead()
    for group in groups:
        if not alive[group.units].any():
            alive[group.units[0]] = True
    return RemovalPlan(groups, alive)


def keeping_share(
    groups: ChannelGroups, scores: np.ndarray, share: float, round_to: int = 1
) -> RemovalPlan:
    """The plan that keeps the best `share`, 0 < share <= 1, of every group's removable units."""
    check_share("filters", share)
    wanted = {
        id(group): round(share * int(group.removable.sum())) + int((~group.removable).sum())
        for group in groups
    }
    return RemovalPlan(groups, _best(groups, scores, lambda group: wanted[id(group)], round_to))


def keeping_cost(
    groups: ChannelGroups,
    scores: np.ndarray,
    cost: Callable[[np.ndarray], int],
    share: float,
    name: str,
    round_to: int = 1,
) -> RemovalPlan:
    """The plan that removes the lowest scores of all groups until a cost fits.

    Args:
        groups: the channel groups of a model.
        scores: float (groups.unit_count,), comparable between groups.
        cost: the cost when the given units, bool (groups.unit_count,), are alive; never grows when
            fewer are.
        share: the share of the present cost to keep, 0 < share <= 1.
        name: what the cost is called in errors.
        round_to: group sizes become multiples of this where they shrink.

    Raises:
        UsageError: the share is out of range, or cannot be reached.
    """
    check_share(name, share)
    limit = share * cost(np.ones(groups.unit_count, bool))
    makers = np.zeros(groups.unit_count, bool)
    for group in groups:
        makers[group.units[group.removable]] = True
    candidates = np.flatnonzero(makers)
    order = candidates[np.argsort(scores[candidates], kind="stable")]

    def alive(removals: int) -> np.ndarray:
        chosen = np.ones(groups.unit_count, bool)
        chosen[order[:removals]] = False
        return _best(groups, scores, lambda group: int(chosen[group.units].sum()), round_to)

    low, high = 0, len(order)
    if cost(alive(high)) > limit:
        least = cost(alive(high)) / cost(np.ones(groups.unit_count, bool))
        raise UsageError(
            f"{name}={share:g} cannot be reached: the least is {least:.3f} of the original, since "
            f"{len(groups.frozen)} layers are frozen (see `tfprune inspect`)"
        )
    while low < high:
        middle = (low + high) // 2
        if cost(alive(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return RemovalPlan(groups, alive(low))


def check_share(name: str, share: float) -> None:
    """Raises a UsageError where a share to keep is none."""
    if not 0 < share <= 1:
        raise UsageError(f"{name}={share:g} is not a share to keep: give a number in 0..1")


def _best(
    groups: ChannelGroups,
    scores: np.ndarray,
    wanted: Callable[..., int],
    round_to: int,
) -> np.ndarray:
    """Which units live: the `wanted` best of each group, rounded up, and all frozen ones."""
    alive = np.ones(groups.unit_count, bool)
    for group in groups:
        count = min(group.size, math.ceil(max(1, wanted(group)) / round_to) * round_to)
        # Frozen units come first: they stay, whatever they score.
        order = np.lexsort((-scores[group.units], group.removable))
        alive[group.units[order[count:]]] = False
    # A group may have more frozen units than it wants to keep.
    return alive | groups.fixed
