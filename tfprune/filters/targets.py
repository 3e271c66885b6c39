"""Which channels go, from a target that is counted: filters, MACs, parameters, or what is dead."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.cost import Cost
from tfprune.filters.depth import remove_dead_blocks
from tfprune.filters.fold import FoldReport, fold_constants
from tfprune.filters.gradients import LabelledImages
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance
from tfprune.filters.limits import Limits, Names
from tfprune.filters.plan import (
    RemovalPlan,
    keeping_cost,
    keeping_share,
    removing,
    removing_dead,
)
from tfprune.filters.rebuild import rebuild
from tfprune.filters.rounds import in_rounds


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
    scope: Literal["layer", "global"] = "layer",
    importance: Importance = "l2",
    data: LabelledImages | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    rounds: int = 1,
) -> RemovalPlan:
    """Decides which channels go, and changes nothing.

    Give exactly one of the four targets `filters`, `macs`, `params` and `dead`.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: the share of the filters to keep, 0 to 1; of what `scope` says.
        macs: the share of the multiply-accumulates to keep; filters compete across all layers.
        params: the share of the parameters to keep; filters compete across all layers.
        dead: the channels that contribute nothing, which changes no output; `tfprune.slim` also
            folds constants and removes dead residual blocks, see `simplified`.
        scope: of `filters`: `"layer"` keeps its share in every channel group, `"global"` keeps it
            of all removable filters, which compete across all layers.
        importance: how filters are ranked: a name in `tfprune.filters.IMPORTANCE` (`l1`, `l2`,
            `lasso`, `bn_gamma`, `geometric_median`, `taylor`, `random`), or a function of the
            `ChannelGroups` that returns one score per unit, float (unit_count,).
        data: labelled training images, which `taylor` needs: float or uint8 (n, ...) images as the
            model takes them, and int (n,) labels. A few hundred do.
        round_to: sizes become multiples of this where they shrink; runtimes work in tiles.
        minimum: channels that each group keeps at least, where it has so many.
        exclude: layers that keep all their channels, and so do those coupled with them: names,
            paths, globs of these such as `"conv*"`, or the name of a nested model.
        rounds: how often filters are ranked. The share is approached in so many geometric steps,
            each ranked anew on the model that the one before would leave (Molchanov et al. 2017).

    Returns:
        The plan, for `tfprune.filters.rebuild`.

    Raises:
        UsageError: not exactly one target, one that is out of range or out of reach, a model of
            which nothing can be removed or whose MACs cannot be counted, a limit that is none, an
            unknown layer or importance, missing data, or a model without a graph.
    """
    named = {"filters": filters, "macs": macs, "params": params}
    shares = [(name, share) for name, share in named.items() if share is not None]
    given = [name for name, _ in shares] + ["dead"] * dead
    if len(given) != 1:
        raise UsageError(
            "give exactly one of filters, macs, params and dead, "
            f"not {' and '.join(given) or 'none'}"
        )
    if scope not in ("layer", "global"):
        raise UsageError(f"scope={scope!r} is unknown: choose one of layer, global")
    if dead and rounds != 1:
        raise UsageError(f"rounds={rounds} lead to a share, and dead has none: leave rounds out")
    groups = ChannelGroups(model)
    # Looked at once: an iterator would be empty the second time.
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    if dead:
        return removing_dead(groups, round_to, minimum, exclude)
    ((name, share),) = shares

    def choose(ranked: np.ndarray, share: float) -> RemovalPlan:
        limits = (round_to, minimum, exclude)
        if name == "filters" and scope == "layer":
            return keeping_share(groups, ranked, share, *limits)
        return keeping_cost(groups, ranked, _cost(groups, name, exclude), share, name, *limits)

    found = in_rounds(groups, choose, share, rounds, importance, data)
    if share < 1 and found.alive.all():
        _say_nothing_goes(groups, f"{name}={share:g}", Limits(groups, round_to, minimum, exclude))
    return found


def _say_nothing_goes(groups: ChannelGroups, target: str, limits: Limits) -> None:
    """Refuses a target where no channel may go at all, and warns where none had to."""
    nothing = f"{target} removes nothing of model {groups.model.name!r}"
    if not limits.removable.size:
        raise UsageError(f"{nothing}, where no channel may go: {limits}")
    warnings.warn(f"slim: {nothing}: every group is as small as its limits allow", stacklevel=4)


def _cost(groups: ChannelGroups, name: str, exclude: Names) -> Callable[[np.ndarray], int]:
    """From the units that live to the cost of that name."""
    if name == "filters":
        return partial(_count, Limits(groups, exclude=exclude).removable)
    return {"macs": Cost(groups).macs, "params": Cost(groups).params}[name]


def _count(units: np.ndarray, alive: np.ndarray) -> int:
    return int(alive[units].sum())


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
