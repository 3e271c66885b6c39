"""From a Keras model to a slimmer one, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.cost import Cost
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import scores
from tfprune.filters.plan import (
    RemovalPlan,
    keeping_cost,
    keeping_share,
    removing,
    removing_dead,
)
from tfprune.filters.rebuild import rebuild

Importance = str | Callable[[ChannelGroups], np.ndarray]


def remove_filters(model: keras.Model, filters: Mapping[str, Sequence[int]]) -> keras.Model:
    """Removes filters, and every channel that is coupled with them.

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
    return rebuild(removing(ChannelGroups(model), filters))


def plan(
    model: keras.Model,
    *,
    filters: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    dead: bool = False,
    importance: Importance = "l2",
    round_to: int = 1,
) -> RemovalPlan:
    """Decides which channels go; see `slim`, whose arguments these are."""
    named = {"filters": filters, "macs": macs, "params": params}
    given = [name for name, share in named.items() if share is not None] + ["dead"] * dead
    if len(given) != 1:
        raise UsageError(
            "give slim exactly one of filters, macs, params and dead, "
            f"not {' and '.join(given) or 'none'}"
        )
    if round_to < 1:
        raise UsageError(f"round_to={round_to} is not a number of channels: give 1 or more")
    groups = ChannelGroups(model)
    if dead:
        return removing_dead(groups)
    ranked = scores(groups, importance)
    if filters is not None:
        return keeping_share(groups, ranked, filters, round_to)
    cost, share = (Cost(groups).macs, macs) if macs is not None else (Cost(groups).params, params)
    assert share is not None
    return keeping_cost(groups, ranked, cost, share, given[0], round_to)


def slim(
    model: keras.Model,
    *,
    filters: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    dead: bool = False,
    importance: Importance = "l2",
    round_to: int = 1,
) -> keras.Model:
    """Rebuilds a model without its least important channels.

    Give exactly one of the four targets.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: the share of the filters of every channel group to keep, 0 to 1.
        macs: the share of the multiply-accumulates to keep; filters compete across all layers.
        params: the share of the parameters to keep; filters compete across all layers.
        dead: remove just what contributes nothing, which changes no output.
        importance: how filters are ranked: `l1`, `l2`, `lasso`, `random`, or a function of the
            `ChannelGroups` that returns one score per unit.
        round_to: sizes become multiples of this where they shrink; runtimes work in tiles.

    Returns:
        An ordinary Keras model with fewer channels, the same layer names, inputs and outputs.

    Raises:
        UsageError: a target out of range or out of reach, or a model without a graph.
    """
    return rebuild(
        plan(
            model,
            filters=filters,
            macs=macs,
            params=params,
            dead=dead,
            importance=importance,
            round_to=round_to,
        )
    )
