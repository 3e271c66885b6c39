"""A removal plan as data: what a JSON file holds of it, and reading it back."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pydantic

from tfprune.errors import UsageError
from tfprune.filters.cost import Cost
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.plan import RemovalPlan, removing
from tfprune.validation import describe_error

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
    """What a file holds of a plan; `.model_dump()` gives a JSON document."""
    groups, cost = plan.groups, Cost(plan.groups)
    before = np.ones(groups.unit_count, bool)
    try:
        macs = [cost.macs(before), cost.macs(plan.alive)]
    except UsageError:
        # A model of open sizes has no count of these.
        macs = None
    producers = groups.producers.items()
    return PlanDocument(
        model=groups.model.name,
        macs=macs,
        parameters=[cost.params(before), cost.params(plan.alive)],
        channels={path: len(units) for path, units in producers},
        kept={path: int(plan.alive[units].sum()) for path, units in producers},
        removed=plan.removed,
        inexact=plan.inexact,
        frozen=groups.frozen,
    )


def planned(groups: ChannelGroups, document: Any, name: str = "the plan") -> RemovalPlan:
    """The plan that a document holds, for a model that has the layers it was made for.

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
            said = describe_error(error, PlanDocument)
            raise UsageError(f"{name} is no removal plan: {said.lstrip()}") from error
    present = {path: len(units) for path, units in groups.producers.items()}
    for path in document.channels | present:
        made_for, found = (each.get(path, 0) for each in (document.channels, present))
        if made_for != found:
            raise UsageError(
                f"{name} was made for a model {document.model!r} with {made_for} filters in layer "
                f"{path!r}, and {groups.model.name!r} has {found}: give the model it was made for"
            )
    try:
        return removing(groups, document.removed)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
