"""Searches for the removal plan with the smallest loss, for costs that fall in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters import ChannelGroups, RemovalPlan
from tfprune.filters.plan import Limits, Names

# Maps the number of removed units of each group, int (plans, groups), to the cost of each plan,
# float (plans,). The cost must not grow if more units are removed.
PlanCosts = Callable[[np.ndarray], np.ndarray]
# About how many sizes of a large group are tried at first.
_COARSE = 8


class OutOfReachError(UsageError):
    """The limit is below the cost of every plan.

    Attributes:
        least: the cost of the cheapest plan.
    """

    def __init__(self, least: float) -> None:
        super().__init__(f"the least cost is {least:g}")
        self.least = least


@dataclass(frozen=True, eq=False)
class Ladder:
    """The sizes that one group may shrink to (its rungs), and the loss at each of them.

    Example:
        ```python
        ladder = Ladder(size=4, scores=np.ones(4), kept=0.0, removed=np.arange(4))
        ladder.losses  # [0, 1/3, 1, 3]
        ```

    Attributes:
        size: the present number of units of the group.
        scores: float (removable,), ascending: the importance of the removable units.
        kept: the sum of the scores of the other units.
        removed: int (rungs,), ascending: the number of removed units at each rung; mostly from 0.
        layers: the number of layers that make these units.
    """

    size: int
    scores: np.ndarray
    kept: float
    removed: np.ndarray
    layers: int = 1

    @cached_property
    def losses(self) -> np.ndarray:
        """The loss at each rung, float (rungs,): layers * (present importance / rest - 1).

        The rest is the importance that remains. Removing half of a layer's importance has a loss of
        1 for wide and narrow layers, removing half of the rest 2 more, and the loss of the last
        unit is unbounded. With a plain sum of scores, one layer would become empty before the next
        one shrinks.
        """
        left = self.kept + self.scores.sum() - np.append(0.0, self.scores.cumsum())[self.removed]
        if left[0] <= 0:
            return np.zeros(len(left))
        return self.layers * (left[0] / np.maximum(left, 1e-12 * left[0]) - 1)

    @cached_property
    def coarse(self) -> np.ndarray:
        """The rungs to try first: multiples of a power of two, and the first and last rung."""
        step = 1 << max(0, int(np.ceil(np.log2(self.size / _COARSE))))
        chosen = (self.size - self.removed) % step == 0
        chosen[[0, -1]] = True
        return np.flatnonzero(chosen)


def search(ladders: Sequence[Ladder], cost: PlanCosts, limit: float) -> np.ndarray:
    """Finds a plan within a limit with a small loss, by three searches.

    Example:
        ```python
        ladder = Ladder(size=4, scores=np.ones(4), kept=0.0, removed=np.arange(4))
        search([ladder], lambda removed: 4.0 - removed.sum(axis=1), limit=2.0)  # [2]
        ```

    - The first search repeats the step, of any length, that saves the most cost for its loss: one
      step of a staircase may span many channels.
    - The second search minimises loss + price * cost, one group after the other, for many prices.
    - The third search removes the lowest scores of all groups, as a plan for a smooth cost does, so
      that the result is never worse than such a plan.

    Each search restores the units that its plan did not have to remove.

    Args:
        ladders: one for each group.
        cost: the costs of plans.
        limit: the highest cost of the plan.

    Returns:
        Int (groups,): the number of removed units of each group.

    Raises:
        OutOfReachError: the limit is below the cost of removing all removable units.

    Source:
        Shen et al. 2022, Structural Pruning via Latency-Saliency Knapsack,
        https://arxiv.org/abs/2210.06659, weighs scores against measured latencies; the prices are
        Lagrange multipliers (Everett 1963).
    """
    return _Search(ladders, cost, limit).best()


def total_loss(ladders: Sequence[Ladder], removed: Sequence[int] | np.ndarray) -> float:
    """The loss of a plan, summed over all groups.

    Example:
        ```python
        ladder = Ladder(size=4, scores=np.ones(4), kept=0.0, removed=np.arange(4))
        total_loss([ladder, ladder], [2, 2])  # 2.0
        ```

    Args:
        ladders: one for each group.
        removed: int (groups,): the number of removed units of each group.
    """
    pairs = zip(ladders, removed, strict=True)
    return float(sum(ladder.losses[np.searchsorted(ladder.removed, n)] for ladder, n in pairs))


class _Search:
    """The three searches; here a plan is int (groups,), the rung of each group."""

    def __init__(self, ladders: Sequence[Ladder], cost: PlanCosts, limit: float) -> None:
        self._ladders, self._limit = ladders, limit
        self._cost_of_removed = cost

    def best(self) -> np.ndarray:
        start = np.zeros(len(self._ladders), int)
        last = np.array([len(ladder.removed) - 1 for ladder in self._ladders], int)
        if self._cost(start)[0] <= self._limit:
            return start
        least = float(self._cost(last)[0])
        if least > self._limit:
            raise OutOfReachError(least)
        results = [self._descend(start), self._rank(last), *self._price(last)]
        plans = np.stack([self._restore(plan, fine=False) for plan in np.unique(results, axis=0)])
        best = plans[int(np.argmin(self._losses(plans)))]
        return self._removed(self._restore(best, fine=True))[0]

    def _removed(self, plans: np.ndarray) -> np.ndarray:
        removed = np.empty_like(np.atleast_2d(plans))
        for g, ladder in enumerate(self._ladders):
            removed[:, g] = ladder.removed[np.atleast_2d(plans)[:, g]]
        return removed

    def _cost(self, plans: np.ndarray) -> np.ndarray:
        return self._cost_of_removed(self._removed(plans))

    def _losses(self, plans: np.ndarray) -> np.ndarray:
        columns = np.atleast_2d(plans).T
        ladders = zip(self._ladders, columns, strict=True)
        return np.sum([ladder.losses[rungs] for ladder, rungs in ladders], axis=0)

    def _with(self, plan: np.ndarray, group: int, rungs: np.ndarray) -> np.ndarray:
        """Plans with a group at each of the rungs, int (rungs, groups)."""
        plans = np.repeat(plan[None], len(rungs), axis=0)
        plans[:, group] = rungs
        return plans

    def _descend(self, plan: np.ndarray) -> np.ndarray:
        now = self._cost(plan)[0]
        while now > self._limit:
            plans = np.concatenate(
                [
                    self._with(plan, g, ladder.coarse[ladder.coarse > plan[g]])
                    for g, ladder in enumerate(self._ladders)
                ]
            )
            costs = self._cost(plans)
            # A cost below the limit has no further value.
            saved = np.minimum(now - costs, now - self._limit)
            losses = self._losses(plans) - self._losses(plan)
            if saved.max() > 0:
                chosen = int(np.argmax(saved / np.maximum(losses, 1e-12)))
            else:
                # Several groups may have to shrink before the cost falls.
                chosen = int(np.argmin(losses))
            plan, now = plans[chosen], costs[chosen]
        return plan

    def _rank(self, last: np.ndarray) -> np.ndarray:
        thresholds = np.unique(np.concatenate([ladder.scores for ladder in self._ladders]))
        low, high = 0, len(thresholds)

        def below(count: int) -> np.ndarray:
            if count == len(thresholds):
                return last
            counts = [np.searchsorted(ladder.scores, thresholds[count]) for ladder in self._ladders]
            return np.array(
                [
                    max(0, int(np.searchsorted(ladder.removed, n, "right")) - 1)
                    for ladder, n in zip(self._ladders, counts, strict=True)
                ]
            )

        while low < high:
            middle = (low + high) // 2
            if self._cost(below(middle))[0] <= self._limit:
                high = middle
            else:
                low = middle + 1
        return below(low)

    def _price(self, last: np.ndarray) -> Iterator[np.ndarray]:
        """Plans within the limit, for ever lower prices of the cost."""
        # At the lowest price nothing is removed, at the highest price everything.
        low, high = -12.0, 12.0
        scale = self._cost(np.zeros_like(last))[0]
        for _ in range(12):
            price = (low + high) / 2
            plan = self._minimise(np.exp(price) / scale)
            if self._cost(plan)[0] <= self._limit:
                high = price
                yield plan
            else:
                low = price

    def _minimise(self, price: float) -> np.ndarray:
        plan = np.zeros(len(self._ladders), int)
        # Each choice lowers the sum, so the loop converges; the bound is for nearly equal sums.
        for _ in range(10):
            before = plan.copy()
            for g, ladder in enumerate(self._ladders):
                plans = self._with(plan, g, ladder.coarse)
                total = ladder.losses[ladder.coarse] + price * self._cost(plans)
                plan = plans[int(np.argmin(total))]
            if (plan == before).all():
                break
        return plan

    def _restore(self, plan: np.ndarray, *, fine: bool) -> np.ndarray:
        """Restores units as far as the limit allows, first those that save the most loss.

        Args:
            plan: a plan within the limit.
            fine: whether to use all rungs instead of the coarse ones.
        """
        while True:
            options = [
                (ladder.losses[plan[g]] - ladder.losses[rung], g, rung)
                for g, ladder, rungs in self._fitting(plan, fine)
                for rung in [self._lowest(plan, g, rungs)]
            ]
            if not options:
                return plan
            _, g, rung = max(options, key=lambda option: option[:2])
            plan = self._with(plan, g, np.array([rung]))[0]

    def _fitting(self, plan: np.ndarray, fine: bool) -> Iterator[tuple[int, Ladder, np.ndarray]]:
        """The groups whose next lower rung is within the limit, with all their lower rungs."""
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
        """The lowest of the rungs within the limit; the last one is within it."""
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
    """Removal plans that remove the least important units of each group first.

    Example:
        ```python
        groups = tfprune.channel_groups(model)
        removals = Removals(groups, np.random.rand(groups.unit_count))
        slim = tfprune.filters.rebuild(removals.plan([4] * len(groups)))
        ```

    Args:
        groups: the channel groups of a model.
        scores: float (groups.unit_count,): the importance of each unit.
        round_to: the size of a group that shrinks becomes a multiple of this.
        minimum: units that every group keeps at least.
        exclude: layers that keep all their channels; see `Limits`.
        gone: bool (groups.unit_count,): removable units that every plan removes; none if None.

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
        gone: np.ndarray | None = None,
    ) -> None:
        limits = Limits(groups, round_to, minimum, exclude)
        if gone is None:
            gone = np.zeros(groups.unit_count, bool)
        # What is gone has no importance that could be lost.
        scores = np.where(gone, min(0.0, float(scores.min(initial=0.0))), scores)
        self.groups = groups
        self._order: list[np.ndarray] = []
        self.ladders: list[Ladder] = []
        for group in groups:
            free = group.units[limits.free(group)]
            free = free[np.lexsort((scores[free], ~gone[free]))]
            # A group that is gone as a whole cannot be rebuilt without its last unit.
            least = min(int(np.count_nonzero(gone[free])), group.size - 1)
            sizes = group.size - np.arange(len(free) + 1)
            allowed = (sizes >= minimum) & (sizes % round_to == 0)
            allowed[:least] = False
            allowed[least] = True
            self._order.append(free)
            kept = float(scores[group.units].sum() - scores[free].sum())
            removed = np.flatnonzero(allowed)
            self.ladders.append(
                Ladder(group.size, scores[free], max(0.0, kept), removed, len(group.layers))
            )

    @property
    def least(self) -> np.ndarray:
        """Int (groups,): the numbers of units of each group that every plan removes."""
        return np.array([ladder.removed[0] for ladder in self.ladders], int)

    def plan(self, removed: Sequence[int] | np.ndarray) -> RemovalPlan:
        """The removal plan for the number of removed units of each group, int (groups,)."""
        alive = np.ones(self.groups.unit_count, bool)
        for order, count in zip(self._order, removed, strict=True):
            alive[order[:count]] = False
        return RemovalPlan(self.groups, alive)

    def sizes(self, axes: Sequence[Axis]) -> Sizes:
        """Predicts the lengths of some axes of the model's weights."""
        return Sizes(self.groups, self._order, axes)


class Sizes:
    """The lengths of axes of weights, for many plans at once."""

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
        """By how much the axes shrink, int (1 + removable, axes) for each group."""
        # One unit may have several entries on one axis, as after Flatten.
        entries = np.zeros((len(self._units), self._unit_count), int)
        for axis, units in enumerate(self._units):
            np.add.at(entries[axis], units, 1)
        return [
            np.concatenate([np.zeros((1, len(entries)), int), entries[:, order].T.cumsum(axis=0)])
            for order in self._order
        ]

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Lengths, int (plans, axes), for removed units `removed`, int (plans, groups)."""
        lengths = np.repeat(self._now[None], len(removed), axis=0)
        for shrunk, column in zip(self._shrunk, removed.T, strict=True):
            lengths -= shrunk[column]
        return lengths
