"""Plans removals for a target that is measured: latency, milliseconds or bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.data.adapting import Data
from tfprune.devices.cost import PredictedBytes, PredictedTime
from tfprune.devices.search import OutOfReachError, PlanCosts, Removals, search, total_loss
from tfprune.devices.timing import Measured, Profiler
from tfprune.errors import TfpruneError, UsageError
from tfprune.filters import ChannelGroups, RemovalPlan, rebuild
from tfprune.filters.importance import Importance, scores
from tfprune.filters.limits import Names
from tfprune.filters.targets import Target
from tfprune.formats import FORMATS

# How often a whole model is rebuilt, exported and measured at most.
_ATTEMPTS = 4
# A plan whose value is below the target by at most this share is not corrected.
_CLOSE = 0.03
# A correction aims this share lower than necessary, since the next measurement has noise too.
_MARGIN = 0.005


@dataclass(frozen=True, eq=False)
class MeasuredPlan(RemovalPlan):
    """A removal plan whose slim model was exported and measured.

    Attributes:
        measured: the measured figures.
    """

    measured: Measured


def plan(
    model: keras.Model,
    target: Target,
    *,
    importance: Importance = "l2",
    data: Data | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    threads: int = 1,
    format: str = "tflite",
    progress: Callable[[str], None] | None = None,
) -> MeasuredPlan:
    """Decides which channels to remove so that the exported model meets a measured target.

    Example:
        ```python
        removal = plan(model, Target.of(latency=0.5))
        removal.measured.slim_ms, removal.measured.original_ms  # (0.8, 1.7)
        slim = tfprune.filters.rebuild(removal)
        ```

    Runtimes compute convolutions in tiles. With a tile of 16, 11 filters take as long as 16, so the
    time falls in steps where multiply-accumulates fall evenly. Therefore each operator is timed
    alone on this machine, with all numbers of channels that it may have, and channels are removed
    where these times fall. The whole model is rebuilt, exported and timed in turn with the
    original. If it misses the target, a corrected plan follows.

    Args:
        model: a functional or built Sequential Keras model with one input and one output; it is
            not changed.
        target: `latency`, `milliseconds` or `bytes`.
        importance: how filters are ranked; see `tfprune.slim`.
        data: labelled training examples, which `taylor` needs; see `tfprune.slim`.
        round_to: the size of a group that shrinks becomes a multiple of this.
        minimum: channels that every channel group keeps at least.
        exclude: layers that keep all their channels; see `tfprune.slim`.
        threads: threads of the TFLite interpreter.
        format: `"tflite"` or `"tflite-int8"`.
        progress: receives a short message after each measurement; nothing is printed.

    Returns:
        The plan for `tfprune.filters.rebuild`, with its measured figures.

    Raises:
        UsageError: a number is out of range, a layer or format is unknown, the target is out of
            reach, or the model has no graph.
        TfpruneError: the model cannot be exported, or the timings vary too much.

    Source:
        Yang et al. 2018, NetAdapt, https://arxiv.org/abs/1804.03230, plans with tables of measured
        layers and checks the whole model.
    """
    groups = ChannelGroups(model)
    ranked = scores(groups, importance, data)
    removals = Removals(groups, ranked, round_to=round_to, minimum=minimum, exclude=exclude)
    with Profiler(model, format, threads, progress) as profiler:
        return plan_removals(removals, target, profiler)


def measured_value(target: Target, measured: Measured) -> float:
    """The measured figure in the unit of the target: a share, milliseconds or bytes."""
    if target.name == "bytes":
        return measured.slim_bytes
    assert measured.slim_ms is not None and measured.original_ms is not None
    return measured.slim_ms / (measured.original_ms if target.name == "latency" else 1.0)


def plan_removals(removals: Removals, target: Target, profiler: Profiler) -> MeasuredPlan:
    """Finds the plan with the smallest loss among those that meet a target when measured.

    Args:
        removals: the units that may be removed.
        target: the target.
        profiler: exports and measures models.

    Raises:
        UsageError: the target is out of reach.
        TfpruneError: no measured plan meets the target.
    """
    by_bytes = target.name == "bytes"
    present = profiler.untouched(timed=not by_bytes)
    nothing = np.zeros(len(removals.ladders), int)
    if measured_value(target, present) <= target.value:
        return _measured_plan(removals, nothing, present)
    cost: PlanCosts
    if by_bytes:
        per_parameter = FORMATS[present.format].parameter_bytes
        cost = PredictedBytes(removals, per_parameter, present.original_bytes)
    else:
        cost = PredictedTime(removals, profiler.times(), profiler.fastest())

    def measure(removed: np.ndarray) -> Measured:
        slim = rebuild(removals.plan(removed))
        return profiler.size(slim) if by_bytes else profiler.time(slim)

    aim = float(cost(nothing[None])[0]) * target.value / measured_value(target, present)
    return _measured_plan(removals, *search_with_corrections(removals, cost, measure, target, aim))


def search_with_corrections(
    removals: Removals,
    cost: PlanCosts,
    measure: Callable[[np.ndarray], Measured],
    target: Target,
    aim: float,
) -> tuple[np.ndarray, Measured]:
    """Searches with predicted costs, measures the plan, and corrects the limit of the search.

    Args:
        removals: the units that may be removed.
        cost: predicts the costs of plans.
        measure: measures the plan that removes these numbers of units, int (groups,).
        target: the target.
        aim: the predicted cost that the first search may reach.

    Returns:
        The number of removed units of each group, int (groups,), and the measured figures.

    Raises:
        UsageError: the target is out of reach.
        TfpruneError: no measured plan meets the target.
    """
    ladders = removals.ladders
    all_removed = np.array([ladder.removed[-1] for ladder in ladders])
    tried: dict[tuple[int, ...], Measured] = {}
    for _ in range(_ATTEMPTS):
        try:
            removed = search(ladders, cost, aim)
        except OutOfReachError:
            removed = all_removed
        if tuple(removed) in tried:
            break
        measured = tried[tuple(removed)] = measure(removed)
        ratio = measured_value(target, measured) / target.value
        if 1 - _CLOSE <= ratio <= 1:
            break
        aim = float(cost(removed[None])[0]) / ratio * (1 - _MARGIN)
    met = [
        removed
        for removed, measured in tried.items()
        if measured_value(target, measured) <= target.value
    ]
    if not met:
        raise _missed_error(target, tried, tuple(all_removed) in tried)
    best = min(met, key=lambda removed: total_loss(ladders, removed))
    return np.array(best), tried[best]


def _missed_error(
    target: Target, tried: Mapping[tuple[int, ...], Measured], all_removed: bool
) -> TfpruneError:
    least = min(measured_value(target, measured) for measured in tried.values())
    option = f"{target.name}={target.value:g}"
    if all_removed:
        return UsageError(
            f"{option} cannot be reached: with all removable channels removed (see `tfprune "
            f"inspect`), {least:.3g} is measured: give a larger target, or exclude less"
        )
    return TfpruneError(
        f"{option} was missed {len(tried)} times, by at least "
        f"{least / target.value - 1:.1%}: stop other programs on this machine and try again"
    )


def _measured_plan(removals: Removals, removed: np.ndarray, measured: Measured) -> MeasuredPlan:
    plan = removals.plan(removed)
    return MeasuredPlan(plan.groups, plan.alive, measured)
