"""A target approached in steps, with importance scored anew after each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.gradients import LabelledImages
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, scores
from tfprune.filters.plan import RemovalPlan
from tfprune.filters.rebuild import rebuild


def in_rounds(
    groups: ChannelGroups,
    choose: Callable[[np.ndarray, float], RemovalPlan],
    share: float,
    rounds: int,
    importance: Importance,
    data: LabelledImages | None = None,
) -> RemovalPlan:
    """One plan that reaches a share in geometric steps, each scored on what the last would leave.

    What one round removes, no later one brings back.

    Args:
        groups: the channel groups of a model.
        choose: from float scores (groups.unit_count,) and a share to keep to a plan of `groups`;
            removes the lowest scores of a group first.
        share: the share to keep in the end, 0 < share <= 1.
        rounds: how many steps; 1 scores once.
        importance: see `scores`.
        data: see `scores`.

    Raises:
        UsageError: rounds below 1, and whatever `scores` and `choose` raise.

    Source:
        Molchanov et al. 2017, Pruning Convolutional Neural Networks for Resource Efficient
        Inference, alternate removal and ranking.
    """
    if rounds < 1:
        raise UsageError(f"rounds={rounds} is not a number of rounds: give 1 or more")
    ranked = scores(groups, importance, data)
    # Asked for the last step first: what is out of reach is so whatever the scores are.
    found = choose(ranked, share)
    if rounds == 1:
        return found
    found = choose(ranked, share ** (1 / rounds))
    for step in range(2, rounds + 1):
        later = choose(_rescored(found, importance, data), share ** (step / rounds))
        # A group that need not shrink in this step, because of rounding, stays as small as it is.
        found = RemovalPlan(groups, found.alive & later.alive)
    return found


def _rescored(plan: RemovalPlan, importance: Importance, data: LabelledImages | None) -> np.ndarray:
    """Scores of the model that a plan would leave, for the units of the original.

    What is gone scores lowest, so that it stays gone.
    """
    slim = ChannelGroups(rebuild(plan))
    ranked = scores(slim, importance, data)
    found = np.full(plan.groups.unit_count, -np.inf)
    for path, units in plan.groups.producers.items():
        left = units[plan.alive[units]]
        # As in `scores`, what is gone counts in the mean of its group.
        ranked_here = ranked[slim.producers[path]] * (len(units) / len(left))
        # Where channels came loose from one another, the best of them speaks for the unit.
        np.maximum.at(found, left, ranked_here)
    return found
