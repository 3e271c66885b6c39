"""Targets of a device that a model approaches while it trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.devices.base import PLANNED_FIGURES, Device, check_target
from tfprune.devices.compiling import CompilingProfiler
from tfprune.devices.planning import MissedError, measured_value, plan_for_device, predicted_cost
from tfprune.devices.profiling import Measured
from tfprune.devices.search import OutOfReachError, PlanCosts, Removals, search
from tfprune.errors import UsageError
from tfprune.figures import figure
from tfprune.filters import ChannelGroups, RemovalPlan, Target, rebuild, scores
from tfprune.filters.targets import plan_counted, simplified

# The last stage takes away at least this part of what goes: costs before it are predicted.
_LEFT_FOR_LAST = 0.1
# Trained weights compress a little worse or better than those that the last plan was made with.
_MARGIN = 0.005


class DeviceTarget:
    """A target that a device's compiler estimates, for `tfprune.LearnStructure`.

    Example:
        ```python
        target = DeviceTarget(Target.of(cycles=0.5), find_device("ethos-u55-128"))
        target.prepare(model)
        target.bound(tfprune.channel_groups(model)).alive(ranked, dead, 0.7, last=False)
        ```

    Stages on the way go by operators that are compiled alone. Their costs are scaled so that a plan
    which the device estimated as a whole has the estimate. The last stage exports and compiles
    whole models.

    Args:
        target: `cycles`, `latency`, `milliseconds`, `sram` or `flash`.
        device: whose compiler estimates it.
        round_to: the sizes of groups become multiples of this where they shrink.
        progress: receives a short message after each measurement; nothing is printed.

    Attributes:
        reached: the figures of the model as the training left it; None before its end.

    Raises:
        UsageError: the device cannot be planned for, or does not tell the figure.
    """

    def __init__(
        self,
        target: Target,
        device: Device,
        round_to: int = 1,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        check_target(target.name, device)
        self._target, self._device, self._round_to = target, device, round_to
        self._progress = progress
        self._profiler: CompilingProfiler | None = None
        self._reference: _Reference | None = None
        self.reached: Measured | None = None

    def prepare(self, model: keras.Model) -> None:
        """Measures the model that the target is a share of, and plans once for the target.

        Args:
            model: before it trains.

        Raises:
            UsageError: the target is out of reach, or the device's compiler is not installed.
            TfpruneError: the model cannot be exported, or the device cannot run it.
        """
        self.close()
        self.reached = None
        self._profiler = CompilingProfiler(model, self._device, self._progress).__enter__()
        try:
            self._reference = self._plan_once(model, self._profiler)
        except BaseException:
            self.close()
            raise

    def bound(self, groups: ChannelGroups) -> DeviceStages:
        """The stages toward the target, for the channel groups of the model that trains."""
        assert self._profiler is not None and self._reference is not None
        return DeviceStages(groups, self._target, self._profiler, self._reference, self._round_to)

    def finish(self, model: keras.Model) -> None:
        """Measures the trained model without its dead channels, and warns if it misses the target.

        Args:
            model: after the training.
        """
        assert self._profiler is not None
        try:
            simple, _ = simplified(model)
            slim = rebuild(plan_counted(simple, Target("dead", 1.0)))
            self.reached = self._profiler.measure(slim)
        finally:
            self.close()
        value = measured_value(self._target, self.reached)
        if value > self._target.value:
            row = figure(PLANNED_FIGURES[self._target.name])
            found = row.text(self.reached.slim[row.name])
            warnings.warn(
                f"learn: {self._target} was not met: the model without its dead channels has "
                f"{self._target.shown(value, '.3g')}, {row.title} {found} on {self._device.name}: "
                "train for longer, or slim it for this target",
                stacklevel=2,
            )

    def close(self) -> None:
        """Removes the files that were measured."""
        if self._profiler is not None:
            self._profiler.__exit__()
        self._profiler = self._reference = None

    def _plan_once(self, model: keras.Model, profiler: CompilingProfiler) -> _Reference:
        present = measured_value(self._target, profiler.untouched())
        if present <= self._target.value:
            raise UsageError(
                f"{self._target} is met before any training: model {model.name!r} has "
                f"{self._target.shown(present, '.3g')}: give a smaller target"
            )
        groups = ChannelGroups(model)
        removals = Removals(groups, scores(groups, "l2"), round_to=self._round_to)
        plan = plan_for_device(removals, self._target, profiler)
        share = measured_value(self._target, plan.measured) / present
        cost = predicted_cost(removals, self._target, profiler)
        predicted = cost(_removed(plan)[None])[0] / _whole(cost, removals)
        return _Reference(self._target.value / present, float((1 - predicted) / (1 - share)))


@dataclass(frozen=True)
class _Reference:
    """What a plan at the beginning tells of predictions.

    Attributes:
        share: the target as a share of what the model had.
        slope: by how much more a prediction falls than the estimate of the whole model.
    """

    share: float
    slope: float


class DeviceStages:
    """Chooses the units that live in each stage, see `tfprune.filters.stages.StageTarget`."""

    def __init__(
        self,
        groups: ChannelGroups,
        target: Target,
        profiler: CompilingProfiler,
        reference: _Reference,
        round_to: int,
    ) -> None:
        self._groups, self._target, self._profiler = groups, target, profiler
        self._reference, self._round_to = reference, round_to

    @property
    def share(self) -> float:
        """The share of the cost that is left when the target is met, 0 to 1."""
        return self._reference.share

    def alive(self, ranked: np.ndarray, dead: np.ndarray, keep: float, *, last: bool) -> np.ndarray:
        """The units that may live; see `StageTarget`."""
        removals = Removals(self._groups, ranked, round_to=self._round_to, gone=dead)
        if last:
            try:
                plan: RemovalPlan = plan_for_device(
                    removals, self._target, self._profiler, margin=_MARGIN
                )
            except MissedError as error:
                # The end of the training says what was reached.
                plan = error.nearest
            return plan.alive
        cost = predicted_cost(removals, self._target, self._profiler)
        keep = max(keep, self.share + _LEFT_FOR_LAST * (1 - self.share))
        now, end = (self._search(removals, cost, share) for share in (keep, self.share))
        # What the target itself would not take may not go on the way to it.
        return removals.plan(np.minimum(now, end)).alive

    def _search(self, removals: Removals, cost: PlanCosts, keep: float) -> np.ndarray:
        """Int (groups,): how many units go, for a share of the cost as it is predicted."""
        limit = _whole(cost, removals) * (1 - (1 - keep) * self._reference.slope)
        try:
            return search(removals.ladders, cost, limit)
        except OutOfReachError:
            return np.array([ladder.removed[-1] for ladder in removals.ladders], int)


def _whole(cost: PlanCosts, removals: Removals) -> float:
    """The predicted cost of the model with all of its channels."""
    return float(cost(np.zeros((1, len(removals.ladders)), int))[0])


def _removed(plan: RemovalPlan) -> np.ndarray:
    """Int (groups,): how many units of each group a plan removes."""
    return np.array([np.count_nonzero(~plan.alive[group.units]) for group in plan.groups], int)
