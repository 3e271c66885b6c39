"""Targets that are counted in a model, plans that reach them, and how much each group matters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import keras
import numpy as np
import pandas as pd

from tfprune.data.adapting import Data
from tfprune.errors import UsageError
from tfprune.filters.depth import remove_dead_blocks
from tfprune.filters.fold import FoldReport, fold_constants
from tfprune.filters.groups import ChannelGroups, ModelSize
from tfprune.filters.importance import Importance, looked_at, scores
from tfprune.filters.plan import (
    Limits,
    Names,
    RemovalPlan,
    check_keep,
    plan_cost,
    plan_dead,
    plan_filters,
    plan_share,
)
from tfprune.filters.rebuild import rebuild
from tfprune.validation import read_share_or_size
from tfprune.vocabulary import (
    DEVICE_TARGETS,
    MEASURED_TARGETS,
    SIZED_TARGETS,
    Scope,
    TargetName,
)

# Their value is never a share.
_ABSOLUTE = ("milliseconds", "bytes", "dead")


@dataclass(frozen=True)
class Target:
    """The one thing that a removal plan has to reach.

    Attributes:
        name: a name in `COUNTED_TARGETS`, `MEASURED_TARGETS` or `DEVICE_TARGETS`.
        value: the share to keep, 0 to 1; the time of one example for `milliseconds`; the size of
            the file for `bytes`; for `sram` and `flash` a share, or bytes if it is above 1; 1 for
            `dead`.
    """

    name: TargetName
    value: float

    @classmethod
    def of(cls, **targets: float | str | None) -> Target:
        """The one target that is given.

        Example:
            ```python
            Target.of(filters=None, macs=0.5, dead=False)  # Target(name='macs', value=0.5)
            ```

        Args:
            **targets: each possible target by its name; None, or False, where it is not given.

        Raises:
            UsageError: none or several are given, or the value is out of range.
        """
        # Zero equals False, and is a target, if a wrong one.
        given = {
            name: value
            for name, value in targets.items()
            if value is not None and value is not False
        }
        if len(given) != 1:
            raise UsageError(
                f"give exactly one target of {', '.join(targets)}, "
                f"not {' and '.join(given) or 'none'}"
            )
        ((name, value),) = given.items()
        if name in SIZED_TARGETS:
            try:
                value = read_share_or_size(value)
            except ValueError as error:
                raise UsageError(f"{name}={error}") from None
        elif isinstance(value, str):
            raise UsageError(f"{name}={value!r} is not a number: give one")
        elif name not in _ABSOLUTE:
            check_keep(name, value)
        elif not value > 0:
            raise UsageError(f"{name}={value:g} is not a target: give a number above 0")
        return cls(cast(TargetName, name), float(value))

    @property
    def is_share(self) -> bool:
        """Whether its value is a share of what the model has, and not milliseconds or bytes."""
        return self.name not in _ABSOLUTE and self.value <= 1

    def __str__(self) -> str:
        """As a user writes it: "cycles=0.5", "flash=65536"."""
        return f"{self.name}={self.shown(self.value)}"

    def shown(self, value: float, digits: str = "g") -> str:
        """A value of what it limits, in its unit, for an error."""
        whole = self.name == "bytes" or (self.name in SIZED_TARGETS and not self.is_share)
        return f"{value:.0f}" if whole else f"{value:{digits}}"

    @property
    def measured(self) -> bool:
        """Whether it is measured on exported files, and not counted in the model."""
        return self.name in MEASURED_TARGETS or self.needs_device

    @property
    def needs_device(self) -> bool:
        """Whether only a device tells it, and not this machine."""
        return self.name in DEVICE_TARGETS


def remove_filters(model: keras.Model, filters: Mapping[str, Sequence[int]]) -> keras.Model:
    """Removes filters, and every channel that is coupled with them.

    Example:
        ```python
        smaller = tfprune.remove_filters(model, {"conv": [0, 5]})
        ```

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: layer name to the indices of its filters (or units) that go. A layer inside a
            nested model is named `outer/inner`.

    Returns:
        An ordinary Keras model with fewer channels.

    Raises:
        UsageError: an unknown or frozen layer, an index out of range, nothing left of a layer, or
            a model without a graph.
    """
    return rebuild(plan_filters(ChannelGroups(model), filters))


def plan_counted(
    model: keras.Model,
    target: Target,
    *,
    scope: Scope = "layer",
    importance: Importance = "l2",
    data: Data | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    rounds: int = 1,
) -> RemovalPlan:
    """Plans for a target that is counted in the model; `tfprune.plan` describes the arguments.

    Example:
        ```python
        plan_counted(model, Target("macs", 0.5), importance="l1")
        ```

    Raises:
        UsageError: the target is out of reach or removes nothing, an option is unknown or out of
            range, or the model has no graph.
    """
    if scope not in ("layer", "global"):
        raise UsageError(f"scope={scope!r} is unknown: choose one of layer, global")
    if target.name == "dead" and rounds != 1:
        raise UsageError("rounds has no meaning for the target dead: leave it out")
    groups = ChannelGroups(model)
    # Read once: an iterator would be empty the second time.
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    limits = Limits(groups, round_to, minimum, exclude)
    if target.name == "dead":
        return plan_dead(limits)
    name, share = target.name, target.value

    def choose(ranked: np.ndarray, share: float) -> RemovalPlan:
        if name == "filters" and scope == "layer":
            return plan_share(limits, ranked, share)
        return plan_cost(limits, ranked, counted_cost(groups, name, exclude), share, name)

    found = plan_in_rounds(groups, choose, share, rounds, importance, data)
    if share < 1 and found.alive.all():
        _say_nothing_goes(groups, f"{name}={share:g}", limits)
    return found


def _say_nothing_goes(groups: ChannelGroups, target: str, limits: Limits) -> None:
    """Refuses a target where no channel may go at all, and warns where none had to."""
    nothing = f"{target} removes nothing of model {groups.model.name!r}"
    if not limits.removable.size:
        raise UsageError(f"{nothing}, where no channel may go: {limits}")
    warnings.warn(f"slim: {nothing}: every group is as small as its limits allow", stacklevel=5)


def counted_cost(
    groups: ChannelGroups, name: TargetName, exclude: Names = ()
) -> Callable[[np.ndarray], int]:
    """The cost that a target names, as a function of the units that live.

    Args:
        groups: the channel groups of a model.
        name: `"filters"`, `"macs"` or `"params"`.
        exclude: layers whose filters do not count, see `Limits`.

    Returns:
        From bool (groups.unit_count,) to the cost.

    Raises:
        UsageError: for `"macs"`, a layer cannot be counted.
    """
    if name == "filters":
        return partial(_count, Limits(groups, exclude=exclude).removable)
    cost = ModelSize(groups)
    return cost.macs if name == "macs" else cost.params


def _count(units: np.ndarray, alive: np.ndarray) -> int:
    return int(alive[units].sum())


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


def simplified(model: keras.Model, *, tolerance: float = 0.0) -> tuple[keras.Model, FoldReport]:
    """A model without the dead weight that no channel's removal reaches; its outputs are the same.

    Residual branches that add nothing are removed whole, and constants that channels emit are
    folded into the biases of their readers where that is exact, which leaves the channels dead.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        tolerance: how far off the borders of a padded convolution may be, see `fold_constants`.

    Returns:
        The model, and what was folded where, with a bound on the error of each.

    Raises:
        UsageError: a negative tolerance, or a model without a graph.
    """
    # A dead block may be the one reader that a constant cannot be folded into.
    return fold_constants(remove_dead_blocks(model), tolerance=tolerance)


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
