"""Plans that score, cut and rebuild: a target in rounds, and how much each group matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd

from tfprune.data.adapting import Data
from tfprune.errors import UsageError
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, looked_at, scores
from tfprune.filters.plan import RemovalPlan, check_keep
from tfprune.filters.rebuild import rebuild


def plan_in_rounds(
    groups: ChannelGroups,
    choose: Callable[[np.ndarray, float], RemovalPlan],
    keep: float,
    rounds: int,
    importance: Importance,
    data: Data | None = None,
) -> RemovalPlan:
    """One plan that reaches a target in geometric steps, each scored on what the last would leave.

    What a round removes stays away in later rounds.

    Args:
        groups: the channel groups of a model.
        choose: from float scores (groups.unit_count,) and a share to keep to a plan of `groups`;
            removes the lowest scores of a group first.
        keep: the share to keep in the end, 0 < keep <= 1.
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
    # Rounds score several times, and a generator can be read once.
    data = looked_at(groups.model, importance, data)
    ranked = scores(groups, importance, data)
    # Asked for the last step first: what is out of reach is so whatever the scores are.
    plan = choose(ranked, keep)
    if rounds == 1:
        return plan
    plan = choose(ranked, keep ** (1 / rounds))
    for step in range(2, rounds + 1):
        later = choose(_rescored(plan, importance, data), keep ** (step / rounds))
        # A group that need not shrink in this step, because of rounding, stays as small as it is.
        plan = RemovalPlan(groups, plan.alive & later.alive)
    return plan


def _rescored(plan: RemovalPlan, importance: Importance, data: Data | None) -> np.ndarray:
    """Scores of the model that a plan would leave, for the units of the original.

    What is gone scores lowest, so that it stays gone.
    """
    slim = ChannelGroups(rebuild(plan))
    ranked = scores(slim, importance, data)
    rescored = np.full(plan.groups.unit_count, -np.inf)
    for path, units in plan.groups.producers.items():
        left = units[plan.alive[units]]
        # As in `scores`, what is gone counts in the mean of its group.
        ranked_here = ranked[slim.producers[path]] * (len(units) / len(left))
        # Where channels came loose from one another, the best of them speaks for the unit.
        np.maximum.at(rescored, left, ranked_here)
    return rescored


def sensitivity(
    model: keras.Model,
    measure: Callable[[keras.Model], float],
    *,
    keep: Sequence[float] = (0.75, 0.5, 0.25),
    importance: Importance = "l2",
    data: Data | None = None,
) -> pd.DataFrame:
    """Cuts each channel group alone, at several ratios, and measures the slim model.

    Example:
        ```python
        sensitivity(model, lambda slim: slim.evaluate(x, y)[1], keep=(0.5, 0.25))
        ```

    Nothing is trained in between: the table shows where removal hurts at once (Li et al. 2017,
    https://arxiv.org/abs/1608.08710, figure 2).

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        measure: from a model to a figure, such as its accuracy on validation examples.
        keep: the shares of a group's removable channels to keep, 0 to 1, one after another.
        importance: which channels go first; see `tfprune.plan`.
        data: labelled training examples, where the importance needs them; see `tfprune.plan`.

    Returns:
        One row for each group and share, with columns layers (joined by " + "), channels, kept (the
        number that is left), keep (the share) and accuracy (what `measure` returned). The first row
        is the whole model: no layers, keep 1. Groups in which nothing can be removed have no row.

    Raises:
        UsageError: a share outside 0 to 1, or a model without a graph.
    """
    for share in keep:
        check_keep("keep", share)
    groups = ChannelGroups(model)
    ranked = scores(groups, importance, data)
    whole = {"layers": "", "channels": 0, "kept": 0, "keep": 1.0, "accuracy": measure(model)}
    rows = [whole]
    for group in groups:
        units = group.units[group.removable]
        best_first = units[np.argsort(-ranked[units], kind="stable")]
        for share in keep if len(units) else ():
            alive = np.ones(groups.unit_count, bool)
            least = 1 if len(units) == group.size else 0
            alive[best_first[max(least, round(share * len(units))) :]] = False
            rows.append(
                {
                    "layers": " + ".join(group.layers),
                    "channels": group.size,
                    "kept": int(alive[group.units].sum()),
                    "keep": share,
                    "accuracy": measure(rebuild(RemovalPlan(groups, alive))),
                }
            )
    return pd.DataFrame(rows)
