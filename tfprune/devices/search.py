"""Spends removals where the cost really falls, when it falls in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters import ChannelGroups, RemovalPlan
from tfprune.filters.limits import Limits, Names

# From how many units of each group are gone, int (plans, groups), to what each plan costs, float
# (plans,). It must not grow when more are gone.
PlanCosts = Callable[[np.ndarray], np.ndarray]
# A group of many channels is tried at no more sizes than this at first.
_COARSE = 8


class OutOfReachError(UsageError):
    """No plan is as cheap as was asked for.

    Attributes:
        least: what the cheapest plan costs.
    """

    def __init__(self, least: float) -> None:
        super().__init__(f"the least cost is {least:g}")
        self.least = least


@dataclass(frozen=True, eq=False)
class Ladder:
    """The sizes that one group may shrink to, and what is lost by it.

    Attributes:
        size: how many units the group has now.
        scores: float (removable,), ascending: those of the units that may go, in their order.
        kept: the sum of the scores of those that may not.
        gone: int (rungs,), ascending from 0: how many may be gone.
        layers: how many layers make these units.
    """

    size: int
    scores: np.ndarray
    kept: float
    gone: np.ndarray
    layers: int = 1

    @cached_property
    def lost(self) -> np.ndarray:
        """Float (rungs,): by how many times the importance was more than it is, less one.

        Summed over the layers of the group. Halving a layer costs 1, be it wide or narrow, halving
        it again costs 2 more, and its last unit cannot be paid for. A plain sum of scores would
        empty one layer before it touches the next; the steeper the loss, the more evenly layers
        shrink.
        """
        left = self.kept + self.scores.sum() - np.append(0.0, self.scores.cumsum())[self.gone]
        if left[0] <= 0:
            return np.zeros(len(left))
        return self.layers * (left[0] / np.maximum(left, 1e-12 * left[0]) - 1)

    @cached_property
    def coarse(self) -> np.ndarray:
        """The rungs to try first: sizes that are multiples of a power of two, and the last."""
        step = 1 << max(0, int(np.ceil(np.log2(self.size / _COARSE))))
        chosen = (self.size - self.gone) % step == 0
        chosen[[0, -1]] = True
        return np.flatnonzero(chosen)


def search(ladders: Sequence[Ladder], cost: PlanCosts, limit: float) -> np.ndarray:
    """The plan within a limit that loses least, as far as three searches find it.

    The first takes again and again the step, of any length, that saves most for what it loses:
    one step down a staircase may span many channels. The second weighs cost against loss by one
    price and lets every group choose in turn, for many prices. The third removes the lowest scores
    of all groups, as plans do that know only a smooth cost; so none of those beats the answer.
    Each gives back what its plan did not have to remove.

    Args:
        ladders: one a group.
        cost: what plans cost.
        limit: what the plan may cost.

    Returns:
        Int (groups,): how many units of each group go.

    Raises:
        OutOfReachError: all that may go does not suffice.

    Source:
        Shen et al. 2022, Structural Pruning via Latency-Saliency Knapsack, weighs scores against
        measured latencies; the prices are Lagrange multipliers (Everett 1963).
    """
    return _Search(ladders, cost, limit).best()


def lost(ladders: Sequence[Ladder], gone: Sequence[int] | np.ndarray) -> float:
    """What a plan loses, of all groups together, when of each so many units are gone."""
    pairs = zip(ladders, gone, strict=True)
    return float(sum(ladder.lost[np.searchsorted(ladder.gone, n)] for ladder, n in pairs))


class _Search:
    """Plans are int (groups,) of rungs."""

    def __init__(self, ladders: Sequence[Ladder], cost: PlanCosts, limit: float) -> None:
        self._ladders, self._limit = ladders, limit
        self._cost_of_gone = cost

    def best(self) -> np.ndarray:
        start = np.zeros(len(self._ladders), int)
        last = np.array([len(each.gone) - 1 for each in self._ladders], int)
        if self._cost(start)[0] <= self._limit:
            return start
        least = float(self._cost(last)[0])
        if least > self._limit:
            raise OutOfReachError(least)
        found = [self._descended(start, last), self._ranked(last), *self._priced(last)]
        plans = np.stack([self._given_back(plan, fine=False) for plan in np.unique(found, axis=0)])
        best = plans[int(np.argmin(self._lost(plans)))]
        return self._gone(self._given_back(best, fine=True))[0]

    def _gone(self, plans: np.ndarray) -> np.ndarray:
        gone = np.empty_like(np.atleast_2d(plans))
        for g, ladder in enumerate(self._ladders):
            gone[:, g] = ladder.gone[np.atleast_2d(plans)[:, g]]
        return gone

    def _cost(self, plans: np.ndarray) -> np.ndarray:
        return self._cost_of_gone(self._gone(plans))

    def _lost(self, plans: np.ndarray) -> np.ndarray:
        columns = np.atleast_2d(plans).T
        ladders = zip(self._ladders, columns, strict=True)
        return np.sum([ladder.lost[rungs] for ladder, rungs in ladders], axis=0)

    def _with(self, plan: np.ndarray, group: int, rungs: np.ndarray) -> np.ndarray:
        """The plan with the group at each of the rungs, int (rungs, groups)."""
        plans = np.repeat(plan[None], len(rungs), axis=0)
        plans[:, group] = rungs
        return plans

    def _descended(self, plan: np.ndarray, last: np.ndarray) -> np.ndarray:
        now = self._cost(plan)[0]
        while now > self._limit:
            plans = np.concatenate(
                [
                    self._with(plan, g, ladder.coarse[ladder.coarse > plan[g]])
                    for g, ladder in enumerate(self._ladders)
                ]
            )
            costs = self._cost(plans)
            # What is saved beyond the limit is of no use.
            saved = np.minimum(now - costs, now - self._limit)
            lost = self._lost(plans) - self._lost(plan)
            if saved.max() > 0:
                chosen = int(np.argmax(saved / np.maximum(lost, 1e-12)))
            else:
                # Two groups may have to shrink before a step is reached.
                chosen = int(np.argmin(lost))
            plan, now = plans[chosen], costs[chosen]
        return plan

    def _ranked(self, last: np.ndarray) -> np.ndarray:
        bars = np.unique(np.concatenate([each.scores for each in self._ladders]))
        low, high = 0, len(bars)

        def below(count: int) -> np.ndarray:
            if count == len(bars):
                return last
            wanted = [np.searchsorted(each.scores, bars[count]) for each in self._ladders]
            return np.array(
                [
                    np.searchsorted(each.gone, n, "right") - 1
                    for each, n in zip(self._ladders, wanted, strict=True)
                ]
            )

        while low < high:
            middle = (low + high) // 2
            if self._cost(below(middle))[0] <= self._limit:
                high = middle
            else:
                low = middle + 1
        return below(low)

    def _priced(self, last: np.ndarray) -> Iterator[np.ndarray]:
        """The plan of the lowest price that suffices."""
        # At the first price nothing is worth its loss, at the last every saving is.
        low, high = -12.0, 12.0
        scale = self._cost(np.zeros_like(last))[0]
        for _ in range(12):
            price = (low + high) / 2
            plan = self._settled(np.exp(price) / scale)
            if self._cost(plan)[0] <= self._limit:
                high = price
                yield plan
            else:
                low = price

    def _settled(self, price: float) -> np.ndarray:
        plan = np.zeros(len(self._ladders), int)
        # Each choice lowers the sum, so they come to rest; the bound is for nearly equal sums.
        for _ in range(10):
            before = plan.copy()
            for g, ladder in enumerate(self._ladders):
                plans = self._with(plan, g, ladder.coarse)
                total = ladder.lost[ladder.coarse] + price * self._cost(plans)
                plan = plans[int(np.argmin(total))]
            if (plan == before).all():
                break
        return plan

    def _given_back(self, plan: np.ndarray, *, fine: bool) -> np.ndarray:
        """The plan with all back that fits in the limit, what saves the most loss first.

        Args:
            plan: a plan within the limit.
            fine: whether to stop at any rung, and not only at the coarse ones.
        """
        while True:
            options = [
                (ladder.lost[plan[g]] - ladder.lost[rung], g, rung)
                for g, ladder, rungs in self._fitting(plan, fine)
                for rung in [self._lowest(plan, g, rungs)]
            ]
            if not options:
                return plan
            _, g, rung = max(options, key=lambda option: option[:2])
            plan = self._with(plan, g, np.array([rung]))[0]

    def _fitting(self, plan: np.ndarray, fine: bool) -> Iterator[tuple[int, Ladder, np.ndarray]]:
        """The groups of which the next rung fits in the limit, each with its lower rungs."""
        lower = [
            np.arange(rung) if fine else ladder.coarse[ladder.coarse < rung]
            for ladder, rung in zip(self._ladders, plan, strict=True)
        ]
        groups = [g for g, rungs in enumerate(lower) if len(rungs)]
        if groups:
            fits = self._cost(np.concatenate([self._with(plan, g, lower[g][-1:]) for g in groups]))
            for g, cost in zip(groups, fits, strict=True):
                if cost <= self._limit:
                    yield g, self._ladders[g], lower[g]

    def _lowest(self, plan: np.ndarray, group: int, rungs: np.ndarray) -> int:
        """The lowest of the rungs that fits in the limit, of which the last does."""
        low, high = 0, len(rungs) - 1
        while low < high:
            middle = (low + high) // 2
            if self._cost(self._with(plan, group, rungs[[middle]]))[0] <= self._limit:
                high = middle
            else:
                low = middle + 1
        return int(rungs[low])


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
