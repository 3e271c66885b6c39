"""Removal plans: which channels go, within which limits, while nothing has changed yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pydantic

from tfprune.errors import UsageError, did_you_mean
from tfprune.filters.groups import ChannelGroup, ChannelGroups, ModelSize
from tfprune.model.graph import named_layers, path_matches
from tfprune.validation import describe_error

Names = str | Iterable[str]


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


def plan_filters(groups: ChannelGroups, filters: Mapping[str, Sequence[int]]) -> RemovalPlan:
    """The plan that removes the named filters and the channels coupled with them.

    Example:
        ```python
        rebuild(plan_filters(channel_groups(model), {"conv": [0, 3]}))
        ```

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


def plan_dead(limits: Limits) -> RemovalPlan:
    """The plan that removes every unit that contributes nothing; one of each group always stays.

    Example:
        ```python
        plan_dead(Limits(channel_groups(model))).removed  # {"conv": [3]}
        ```

    Args:
        limits: the channel groups of a model, and how far they may shrink.
    """
    groups = limits.groups
    live = ~groups.dead()
    alive = limits.best(live.astype(float), lambda group: int(live[group.units].sum()))
    return RemovalPlan(groups, alive)


def plan_share(
    limits: Limits,
    scores: np.ndarray,
    keep: float,
) -> RemovalPlan:
    """The plan that keeps the best units of every group, by a share of those that are removable.

    Example:
        ```python
        groups = channel_groups(model)
        plan_share(Limits(groups), scores(groups, "l1"), 0.5)
        ```

    Args:
        limits: the channel groups of a model, and how far they may shrink.
        scores: float (groups.unit_count,).
        keep: the share to keep, 0 < keep <= 1.

    Raises:
        UsageError: the share is out of range.
    """
    check_keep("filters", keep)
    groups = limits.groups

    def wanted(group: ChannelGroup) -> int:
        free = int(limits.free(group).sum())
        return round(keep * free) + group.size - free

    return RemovalPlan(groups, limits.best(scores, wanted))


def plan_cost(
    limits: Limits,
    scores: np.ndarray,
    cost: Callable[[np.ndarray], float],
    keep: float,
    name: str,
) -> RemovalPlan:
    """The plan that removes the lowest scores of all groups until a cost fits.

    Example:
        ```python
        groups = channel_groups(model)
        plan_cost(Limits(groups), scores(groups, "l1"), ModelSize(groups).macs, 0.5, "macs")
        ```

    Args:
        limits: the channel groups of a model, and how far they may shrink.
        scores: float (groups.unit_count,), comparable between groups.
        cost: the cost when the given units, bool (groups.unit_count,), are alive; never grows when
            fewer are.
        keep: the share of the present cost to keep, 0 < keep <= 1.
        name: what the cost is called in errors.

    Raises:
        UsageError: the share is out of range or cannot be reached.
    """
    check_keep(name, keep)
    groups = limits.groups
    whole = cost(np.ones(groups.unit_count, bool))
    units = limits.removable
    order = units[np.argsort(scores[units], kind="stable")]

    def alive(removals: int) -> np.ndarray:
        chosen = np.ones(groups.unit_count, bool)
        chosen[order[:removals]] = False
        return limits.best(scores, lambda group: int(chosen[group.units].sum()))

    low, high = 0, len(order)
    least = cost(alive(high))
    if least > keep * whole:
        raise UsageError(
            f"{name}={keep:g} cannot be reached: the least is {least / whole:.3f} of the "
            f"original, since {limits}"
        )
    while low < high:
        middle = (low + high) // 2
        if cost(alive(middle)) <= keep * whole:
            high = middle
        else:
            low = middle + 1
    return RemovalPlan(groups, alive(low))


def check_keep(name: str, keep: float) -> None:
    """Raises a UsageError unless 0 < keep <= 1; `name` is what the user calls the share to keep."""
    if not 0 < keep <= 1:
        raise UsageError(f"{name}={keep:g} is not a share to keep: give a number in 0..1")


# -- plans as data ------------------------------------------------------------------------------


Count = pydantic.NonNegativeInt
BeforeAndAfter = Annotated[list[Count], pydantic.Field(min_length=2, max_length=2)]


class PlanDocument(pydantic.BaseModel):
    """A removal plan as JSON holds it.

    `removed` decides; what else is here tells people what comes of it, and models apart.

    Attributes:
        model: the name of the model that the plan was made for.
        macs: multiply-accumulates of one example before and after; None where a size is open.
        parameters: their number before and after, statistics included.
        channels: layer path to the number of its filters, for every layer that makes channels.
        kept: the same of the slim model.
        removed: layer path to the indices of the filters that go, for layers that lose any.
        inexact: layer to the reason why the slim model does not equal the masked one.
        frozen: layer path to the reason why (some of) its channels cannot go.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    macs: BeforeAndAfter | None
    parameters: BeforeAndAfter
    channels: dict[str, Count]
    kept: dict[str, Count]
    removed: dict[str, list[Count]]
    inexact: dict[str, str]
    frozen: dict[str, str]


def plan_document(plan: RemovalPlan) -> PlanDocument:
    """What a file holds of a plan.

    Example:
        ```python
        path.write_text(plan_document(plan).model_dump_json())
        ```
    """
    groups, size = plan.groups, ModelSize(plan.groups)
    before = np.ones(groups.unit_count, bool)
    try:
        macs = [size.macs(before), size.macs(plan.alive)]
    except UsageError:
        # A model of open sizes has no count of these.
        macs = None
    producers = groups.producers.items()
    return PlanDocument(
        model=groups.model.name,
        macs=macs,
        parameters=[size.params(before), size.params(plan.alive)],
        channels={path: len(units) for path, units in producers},
        kept={path: int(plan.alive[units].sum()) for path, units in producers},
        removed=plan.removed,
        inexact=plan.inexact,
        frozen=groups.frozen,
    )


def read_plan(groups: ChannelGroups, document: Any, name: str = "the plan") -> RemovalPlan:
    """The plan that a document holds, for a model that has the layers it was made for.

    Example:
        ```python
        plan = read_plan(channel_groups(model), json.loads(path.read_text()))
        ```

    Args:
        groups: the channel groups of the model.
        document: what `plan_document` gave, or what was read from its JSON.
        name: what errors call the document, such as the path of its file.

    Raises:
        UsageError: the document is damaged or something else, or the model has other layers, other
            numbers of filters, or filters that cannot go.
    """
    if not isinstance(document, PlanDocument):
        try:
            document = PlanDocument.model_validate(document)
        except pydantic.ValidationError as error:
            reasons = describe_error(error, PlanDocument)
            raise UsageError(f"{name} is not a removal plan: {reasons.lstrip()}") from error
    present = {path: len(units) for path, units in groups.producers.items()}
    for path in document.channels | present:
        expected, actual = document.channels.get(path, 0), present.get(path, 0)
        if expected != actual:
            raise UsageError(
                f"{name} was made for a model {document.model!r} with {expected} filters in layer "
                f"{path!r}, and {groups.model.name!r} has {actual}: give the model it was made for"
            )
    try:
        return plan_filters(groups, document.removed)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
