"""Plans removals for a latency or a size that is measured, not counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.devices.cost import PredictedBytes, PredictedTime
from tfprune.devices.cpu import Measured, Profiler
from tfprune.devices.search import OutOfReachError, PlanCosts, Removals, lost, search
from tfprune.errors import TfpruneError, UsageError
from tfprune.filters import ChannelGroups, RemovalPlan, rebuild
from tfprune.filters.importance import Importance, LabelledImages, scores
from tfprune.filters.limits import Names
from tfprune.filters.targets import Target
from tfprune.formats import FORMATS

# A whole model is rebuilt, exported and measured at most so often.
_ATTEMPTS = 4
# A plan that reaches less than the target by this share is not corrected.
_CLOSE = 0.03
# A correction aims so much lower than it must, since the next measurement has noise, too.
_MARGIN = 0.005


@dataclass(frozen=True, eq=False)
class MeasuredPlan(RemovalPlan):
    """A removal plan whose slim model was exported and measured.

    Attributes:
        measured: the figures.
    """

    measured: Measured


def plan(
    model: keras.Model,
    target: Target,
    *,
    importance: Importance = "l2",
    data: LabelledImages | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    threads: int = 1,
    format: str = "tflite",
    progress: Callable[[str], None] | None = None,
) -> MeasuredPlan:
    """Decides which channels go, so that the exported model is measured to meet a target.

    Runtimes compute convolutions in tiles, so time falls in steps with the number of channels,
    where multiply-accumulates fall evenly: of a tile of 16, 11 filters take as long as 16. So
    each operator is timed alone on this machine with the numbers of channels that it might have;
    removals are spent where these times really fall; and the whole model is rebuilt, exported,
    timed in turn with the original and planned again until what was measured meets the target.

    Args:
        model: a functional or built Sequential Keras model with one input and one output; it is
            not changed.
        target: `latency`, `milliseconds` or `bytes`.
        importance: how filters are ranked; see `tfprune.slim`.
        data: labelled training images, which `taylor` needs; see `tfprune.slim`.
        round_to: sizes become multiples of this where they shrink.
        minimum: every channel group keeps at least so many channels.
        exclude: layers that keep all their channels; see `tfprune.slim`.
        threads: threads of the TFLite interpreter.
        format: `"tflite"` or `"tflite-int8"`.
        progress: told in a few words what has been done; nothing is printed.

    Returns:
        The plan, for `tfprune.filters.rebuild`, with what was measured of it.

    Raises:
        UsageError: a number is out of range, a layer or format is unknown, the target is out of
            reach, or the model has no graph.
        TfpruneError: the model cannot be exported, or the machine is too unsteady.

    Source:
        Yang et al. 2018, NetAdapt, plans by measured tables of layers and checks the whole model.
    """
    groups = ChannelGroups(model)
    ranked = scores(groups, importance, data)
    removals = Removals(groups, ranked, round_to=round_to, minimum=minimum, exclude=exclude)
    with Profiler(model, format, threads, progress) as profiler:
        return plan_removals(removals, target, profiler)


def reached(target: Target, measured: Measured) -> float:
    """What was measured, in the target's unit."""
    if target.name == "bytes":
        return measured.slim_bytes
    assert measured.slim_ms is not None and measured.original_ms is not None
    return measured.slim_ms / (measured.original_ms if target.name == "latency" else 1.0)


def plan_removals(removals: Removals, target: Target, profiler: Profiler) -> MeasuredPlan:
    """The plan that loses least of those that were measured to meet a target.

    Args:
        removals: what may go.
        target: what is asked for.
        profiler: what measures.

    Raises:
        UsageError: the target is out of reach.
        TfpruneError: no plan was measured to meet it.
    """
    sized = target.name == "bytes"
    present = profiler.untouched(timed=not sized)
    nothing = np.zeros(len(removals.ladders), int)
    if reached(target, present) <= target.value:
        return _measured_plan(removals, nothing, present)
    cost: PlanCosts
    if sized:
        each = FORMATS[present.format].parameter_bytes
        cost = PredictedBytes(removals, each, present.original_bytes)
    else:
        cost = PredictedTime(removals, profiler.times(), profiler.fastest())

    def measure(gone: np.ndarray) -> Measured:
        slim = rebuild(removals.plan(gone))
        return profiler.size(slim) if sized else profiler.time(slim)

    aim = float(cost(nothing[None])[0]) * target.value / reached(target, present)
    return _measured_plan(removals, *corrected(removals, cost, measure, target, aim))


def corrected(
    removals: Removals,
    cost: PlanCosts,
    measure: Callable[[np.ndarray], Measured],
    target: Target,
    aim: float,
) -> tuple[np.ndarray, Measured]:
    """Searches by prediction, measures, and corrects the prediction by what was measured.

    Args:
        removals: what may go.
        cost: what is predicted of plans.
        measure: what is measured of one, int (groups,).
        target: what is asked for.
        aim: the prediction to begin with.

    Returns:
        How many units of each group go, int (groups,), and what was measured.

    Raises:
        UsageError: the target is out of reach.
        TfpruneError: no plan was measured to meet it.
    """
    ladders = removals.ladders
    all_gone = np.array([each.gone[-1] for each in ladders])
    tried: dict[tuple[int, ...], Measured] = {}
    for _ in range(_ATTEMPTS):
        try:
            gone = search(ladders, cost, aim)
        except OutOfReachError:
            gone = all_gone
        if tuple(gone) in tried:
            break
        measured = tried[tuple(gone)] = measure(gone)
        off = reached(target, measured) / target.value
        if 1 - _CLOSE <= off <= 1:
            break
        aim = float(cost(gone[None])[0]) / off * (1 - _MARGIN)
    met = [gone for gone, each in tried.items() if reached(target, each) <= target.value]
    if not met:
        raise _missed(target, tried, tuple(all_gone) in tried)
    best = min(met, key=lambda gone: lost(ladders, gone))
    return np.array(best), tried[best]


def _missed(
    target: Target, tried: Mapping[tuple[int, ...], Measured], all_gone: bool
) -> TfpruneError:
    least = min(reached(target, each) for each in tried.values())
    said = f"{target.name}={target.value:g}"
    if all_gone:
        return UsageError(
            f"{said} cannot be reached: the least that was measured is {least:.3g}, with all gone "
            "that may go (see `tfprune inspect`): ask for more than that, or exclude less"
        )
    return TfpruneError(
        f"{said} was missed {len(tried)} times, by at least "
        f"{least / target.value - 1:.1%}: let nothing else run on this machine and try again"
    )


def _measured_plan(removals: Removals, gone: np.ndarray, measured: Measured) -> MeasuredPlan:
    found = removals.plan(gone)
    return MeasuredPlan(found.groups, found.alive, measured)
