"""Plans removals for a target that is measured here, or that a device's compiler estimates."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from tfprune.data.adapting import Data
from tfprune.devices.base import PLANNED_FIGURES, Device, check_target
from tfprune.devices.cost import PredictedBytes, PredictedPeak, PredictedSum
from tfprune.devices.profiling import STEP, CompilingProfiler, CpuProfiler, Measured, Profiler
from tfprune.devices.removals import (
    Ladder,
    OutOfReachError,
    PlanCosts,
    Removals,
    search,
    total_loss,
)
from tfprune.errors import TfpruneError, UsageError
from tfprune.filters import ChannelGroups, RemovalPlan, rebuild
from tfprune.filters.importance import Importance, scores
from tfprune.filters.plan import Names
from tfprune.filters.targets import Target
from tfprune.formats import FORMATS

# How often a whole model is rebuilt, exported and measured at most: here, and by a compiler, which
# tells the same of the same file.
_ATTEMPTS = 4
_COMPILED_ATTEMPTS = 6
# Plans that a compiler is then asked for, around one that meets the target from far.
_MOST_REFINEMENTS = 8
# Searches, of which some find a plan that was measured before, and how near two aims are the same.
_MOST_SEARCHES = 24
_SAME_AIM = 1e-2
_BOLD = 0.75
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
    device: Device | None = None,
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

    For a device, its compiler takes the place of the clock: it estimates each operator alone, then
    the whole exported model.

    Args:
        model: a functional or built Sequential Keras model with one input and one output; it is
            not changed.
        target: `latency`, `milliseconds` or `bytes`; of a device `cycles`, `latency`,
            `milliseconds`, `sram` or `flash`.
        importance: how filters are ranked; see `tfprune.slim`.
        data: labelled training examples, which `taylor` needs; see `tfprune.slim`.
        round_to: the size of a group that shrinks becomes a multiple of this.
        minimum: channels that every channel group keeps at least.
        exclude: layers that keep all their channels; see `tfprune.slim`.
        threads: threads of the TFLite interpreter.
        format: `"tflite"` or `"tflite-int8"`.
        device: a device whose compiler estimates figures; this machine if None.
        progress: receives a short message after each measurement; nothing is printed.

    Returns:
        The plan for `tfprune.filters.rebuild`, with its measured figures.

    Raises:
        UsageError: a number is out of range, a layer or format is unknown, the target is out of
            reach or not one of the device's, the device cannot be planned for or lacks what it
            needs, or the model has no graph.
        TfpruneError: the model cannot be exported, or the timings vary too much.

    Source:
        Yang et al. 2018, NetAdapt, https://arxiv.org/abs/1804.03230, plans with tables of measured
        layers and checks the whole model.
    """
    check_target(target.name, device)
    groups = ChannelGroups(model)
    ranked = scores(groups, importance, data)
    removals = Removals(groups, ranked, round_to=round_to, minimum=minimum, exclude=exclude)
    if device is not None:
        with CompilingProfiler(model, device, progress, target.name) as compiler:
            found = plan_for_device(removals, target, compiler)
    else:
        with CpuProfiler(model, format, threads, progress, target.name) as profiler:
            found = plan_removals(removals, target, profiler)
    # A share of 1 asks for nothing.
    if found.alive.all() and not (target.is_share and target.value == 1):
        value = target.shown(measured_value(target, found.measured), ".3g")
        warnings.warn(
            f"slim: {target} is met already: model {model.name!r} has {value}, and nothing is "
            "removed",
            stacklevel=4,
        )
    return found


def measured_value(target: Target, measured: Measured) -> float:
    """The measured figure in the unit of the target: a share, milliseconds or bytes."""
    if measured.device:
        figure = PLANNED_FIGURES[target.name]
        return measured.slim[figure] / (measured.original[figure] if target.is_share else 1.0)
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
        cost = PredictedSum(removals, profiler.times(), profiler.fastest())

    def measure(removed: np.ndarray) -> Measured:
        slim = rebuild(removals.plan(removed))
        return profiler.size(slim) if by_bytes else profiler.time(slim)

    aim = float(cost(nothing[None])[0]) * target.value / measured_value(target, present)
    return _measured_plan(removals, *search_with_corrections(removals, cost, measure, target, aim))


def plan_for_device(
    removals: Removals, target: Target, profiler: CompilingProfiler, *, margin: float = 0.0
) -> MeasuredPlan:
    """Finds the plan with the smallest loss among those that meet a target on a device.

    Args:
        removals: the units that may be removed.
        target: the target.
        profiler: exports models and has the device estimate them.
        margin: where channels have to go, by this share more of the target than it says.

    Raises:
        MissedError: no plan that was tried meets the target, or it is out of reach.
    """

    def measure(removed: np.ndarray) -> Measured:
        return profiler.measure(rebuild(removals.plan(removed)))

    least = removals.least
    present = measure(least) if least.any() else profiler.untouched()
    if measured_value(target, present) <= target.value:
        return _measured_plan(removals, least, present)
    target = replace(target, value=target.value * (1 - margin))
    cost = predicted_cost(removals, target, profiler)
    aim = float(cost(least[None])[0]) * target.value / measured_value(target, present)
    found = search_with_corrections(removals, cost, measure, target, aim, exact=True)
    return _measured_plan(removals, *found)


def predicted_cost(removals: Removals, target: Target, profiler: CompilingProfiler) -> PlanCosts:
    """Predicts the figure that a target of a device limits, for removals of a model.

    Args:
        removals: the units that may be removed.
        target: the target.
        profiler: has the device estimate the original and single operators.
    """
    figure = PLANNED_FIGURES[target.name]
    present = profiler.untouched()
    whole = present.original[figure]
    if figure == "flash_bytes":
        return PredictedBytes(removals, FORMATS[present.format].parameter_bytes, whole)
    if figure == "sram_bytes":
        return PredictedPeak(removals, profiler.costs(figure), whole)
    return PredictedSum(removals, profiler.costs(figure), whole, shrinking_rest=True)


def search_with_corrections(
    removals: Removals,
    cost: PlanCosts,
    measure: Callable[[np.ndarray], Measured],
    target: Target,
    aim: float,
    *,
    exact: bool = False,
) -> tuple[np.ndarray, Measured]:
    """Searches with predicted costs, measures the plan, and corrects the limit of the search.

    Args:
        removals: the units that may be removed.
        cost: predicts the costs of plans.
        measure: measures the plan that removes these numbers of units, int (groups,).
        target: the target.
        aim: the predicted cost that the first search may reach.
        exact: whether the same plan always measures the same; then plans are also tried between
            the nearest ones that met and missed the target.

    Returns:
        The number of removed units of each group, int (groups,), and the measured figures.

    Raises:
        UsageError: the target is out of reach.
        TfpruneError: no measured plan meets the target.
    """
    ladders = removals.ladders
    all_removed = np.array([ladder.removed[-1] for ladder in ladders])
    tried: dict[tuple[int, ...], Measured] = {}
    # The highest aim that met the target, and the lowest that missed it.
    low, high = -math.inf, math.inf
    for _ in range(_MOST_SEARCHES):
        try:
            removed = search(ladders, cost, aim)
        except OutOfReachError:
            removed = all_removed
        known = tried.get(tuple(removed.tolist()))
        if known is not None and not exact:
            break
        measured = tried[tuple(removed.tolist())] = known or measure(removed)
        ratio = measured_value(target, measured) / target.value
        if 1 - _CLOSE <= ratio <= 1 or len(tried) == (_COMPILED_ATTEMPTS if exact else _ATTEMPTS):
            break
        if tuple(removed.tolist()) == tuple(all_removed.tolist()) and ratio > 1:
            break
        predicted = float(cost(removed[None])[0])
        corrected = predicted / ratio * (1 if exact else 1 - _MARGIN)
        if exact:
            low, high = (aim, high) if ratio <= 1 else (low, min(aim, predicted))
            if high - low < _SAME_AIM * high:
                break
            if math.isinf(low) and len(tried) > 1:
                # Memory need not follow its prediction: then only a bold step gets below.
                corrected = min(corrected, _BOLD * aim)
            if not low < corrected < high:
                corrected = (low + high) / 2 if math.isfinite(high - low) else aim / ratio
        aim = corrected
    if exact:
        _refine(ladders, cost, measure, target, tried)
    met = [
        removed
        for removed, measured in tried.items()
        if measured_value(target, measured) <= target.value
    ]
    if not met:
        raise _missed_error(removals, target, tried, tuple(all_removed.tolist()) in tried, exact)
    if exact:
        near = (1 - _CLOSE) * target.value
        met = [plan for plan in met if measured_value(target, tried[plan]) >= near] or met
    best = min(met, key=lambda removed: total_loss(ladders, removed))
    return np.array(best), tried[best]


def _refine(
    ladders: Sequence[Ladder],
    cost: PlanCosts,
    measure: Callable[[np.ndarray], Measured],
    target: Target,
    tried: dict[tuple[int, ...], Measured],
) -> None:
    """Looks around the nearest plan that met a target for one that meets it closely.

    On an NPU a cost falls in steps of many channels, so a search may find no plan between two
    steps of one group; steps of two groups, one up and one down, lie between. What is measured is
    added to `tried`, and corrects the predictions that are near it.
    """
    for _ in range(_MOST_REFINEMENTS):
        plans = np.array([*tried])
        values = np.array([measured_value(target, measured) for measured in tried.values()])
        met = values <= target.value
        if not met.any() or values[met].max() >= (1 - _CLOSE) * target.value:
            return
        options = _around(ladders, plans[met][values[met].argmax()])
        options = options[[tuple(option) not in tried for option in options.tolist()]]
        if not len(options):
            return
        nearest = np.abs(options[:, None] - plans[None]).sum(axis=2).argmin(axis=1)
        predicted = values[nearest] * cost(options) / cost(plans)[nearest]
        close = (predicted >= (1 - _CLOSE) * target.value) & (predicted <= target.value)
        if close.any():
            options = options[close]
            chosen = options[np.argmin([total_loss(ladders, option) for option in options])]
        else:
            chosen = options[np.abs(predicted - (1 - _CLOSE / 2) * target.value).argmin()]
        tried[tuple(chosen.tolist())] = measure(chosen)


def _around(ladders: Sequence[Ladder], plan: np.ndarray) -> np.ndarray:
    """The plans, int (plans, groups), with a step up or down in at most two groups."""

    def stepped(group: int) -> set[int]:
        rungs = ladders[group].removed
        # From one multiple of a step to the next ones; a last step would leave nothing.
        size = ladders[group].size - int(plan[group])
        below = (size - 1) // STEP * STEP or size
        sizes = below, size, (size // STEP + 1) * STEP
        return {int(rungs[np.abs(rungs - (ladders[group].size - each)).argmin()]) for each in sizes}

    moves = [(group, removed) for group in range(len(ladders)) for removed in stepped(group)]
    found = np.repeat(plan[None], len(moves) ** 2, axis=0)
    for row, pair in zip(found, itertools.product(moves, moves), strict=True):
        for group, removed in pair:
            row[group] = removed
    return np.unique(found, axis=0)


class MissedError(UsageError):
    """No plan that was tried meets the target of a device.

    Attributes:
        nearest: the plan that came nearest.
    """

    def __init__(self, message: str, nearest: MeasuredPlan) -> None:
        super().__init__(message)
        self.nearest = nearest


def _missed_error(
    removals: Removals,
    target: Target,
    tried: Mapping[tuple[int, ...], Measured],
    all_removed: bool,
    exact: bool,
) -> TfpruneError:
    nearest = min(tried, key=lambda removed: measured_value(target, tried[removed]))
    least = measured_value(target, tried[nearest])
    said = target.shown(least, ".3g")
    plan = _measured_plan(removals, np.array(nearest), tried[nearest])
    if all_removed:
        message = (
            f"{target} cannot be reached: with all removable channels removed (see `tfprune "
            f"inspect`), {said} is {'estimated' if exact else 'measured'}: give a larger "
            "target, or exclude less"
        )
        return MissedError(message, plan) if exact else UsageError(message)
    missed = f"{target} was missed {len(tried)} times, by at least {least / target.value - 1:.1%}"
    if exact:
        return MissedError(f"{missed}: give {said} or more", plan)
    return TfpruneError(f"{missed}: stop other programs on this machine and try again")


def _measured_plan(removals: Removals, removed: np.ndarray, measured: Measured) -> MeasuredPlan:
    plan = removals.plan(removed)
    return MeasuredPlan(plan.groups, plan.alive, measured)
