"""`tfprune.LearnStructure`: learns which channels a model can do without, for every target."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune import devices
from tfprune.data.adapting import Data
from tfprune.devices.base import PLANNED_FIGURES, Device, check_target
from tfprune.devices.planning import MissedError, measured_value, plan_for_device, predicted_cost
from tfprune.devices.profiling import CompilingProfiler, Measured
from tfprune.devices.removals import OutOfReachError, PlanCosts, Removals, search
from tfprune.errors import UsageError
from tfprune.figures import figure
from tfprune.filters import (
    ChannelGroups,
    Importance,
    RemovalPlan,
    StructureLearner,
    Target,
    rebuild,
    scores,
)
from tfprune.filters.stages import Counted
from tfprune.filters.targets import plan_counted, simplified
from tfprune.model.group_lasso import GroupLasso

# The last stage takes away at least this part of what goes: costs before it are predicted.
_LEFT_FOR_LAST = 0.1
# Trained weights compress a little worse or better than those that the last plan was made with.
_MARGIN = 0.005


class LearnStructure(StructureLearner):
    """Trains so that whole channels become exactly zero, under group lasso or up to a target.

    One group is everything that makes a removable channel: its filter in each of the coupled
    layers, its biases, and its BatchNorm gamma and beta. After every update, inside the compiled
    step, each group is moved by the proximal step of `GroupLasso`; the loss itself carries no
    penalty. A group that reaches zero contributes nothing, so `tfprune.slim(model, dead=True)`
    removes it for free.

    A filter before BatchNorm has a direction but no scale: shrinking it changes no output, and
    only makes its next steps larger, until training breaks down. So the norm of a group, and the
    shrinkage, are those of the weights that carry its scale (gamma and beta, or the filter and bias
    where no BatchNorm follows); the filters before BatchNorm become zero when their group does.

    The strength is given, or found from a target: `macs=0.5` keeps half of the MACs.
    What is left of them then falls by tfmot's `PolynomialDecay` from `begin` to `end` of the
    training. In each stage of it, the channels that a plan for the stage would remove get, each,
    the strength that takes its norm to zero by the end of the stage, as a growing penalty would;
    the plan is made anew for the next. So the strength is bounded by what the norm is, the target
    is met when `end` comes, and the rest of the training is for those that live.

    Use it as a callback of any `model.fit`. Nothing of it remains in the model afterwards.

    Example:
        ```python
        model.fit(x, y, epochs=10, callbacks=[LearnStructure(macs=0.5)])
        slim = tfprune.slim(model, dead=True)
        LearnStructure(cycles=0.5, device="ethos-u55-128")  # for an NPU
        ```

    Args:
        penalty: the regularizer whose proximal step is taken, or its strength, for all channels
            alike; with a target, it ends when that is met. Its groups are `filter`, or `depth`:
            then whole residual branches become zero, for `tfprune.slim(model, dead=True)` to
            remove.
        filters: the share of the removable channels to keep, 0 to 1.
        macs: the share of the multiply-accumulates to keep, instead.
        params: the share of the parameters to keep, instead.
        cycles: the share of the cycles of `device` to keep, instead.
        latency: the share of the time on it to keep, instead.
        milliseconds: the time of one example on it, instead.
        sram: the share of the peak of its on-chip memory to keep, instead; or bytes, as a number
            above 1 or a text such as `"64 KiB"`.
        flash: the share of the storage that the model takes on it to keep, instead; or bytes.
        device: for the five above: the device whose compiler estimates them, such as
            `"ethos-u55-128"`, or what `tfprune.devices.find_device` returned for a name with
            options. The share is one of the model as `fit` gets it; its int8 file is compiled
            before the training, in the last stage and at the end, and `reached` has the figures.
        importance: what the plans of a target go by; see `tfprune.slim`. `taylor` takes the
            gradients of the training itself: the squares of each update's gradient times weight,
            summed since the plan before. A stage at the beginning of an epoch only collects them.
        data: labelled training examples for an importance of your own that looks at some; see
            `tfprune.slim`. `taylor` needs none here.
        round_to: the sizes of groups become multiples of this where they shrink for a target.
        begin: the share of the training after which channels begin to go, 0 to 1.
        end: the share of the training at which the target is met, at the latest three stages later.
        frequency: updates in a stage.

    Raises:
        UsageError: no strength and no target, two targets or one out of range, the penalty groups
            something other than filters, a device without a target that it tells, or such a target
            without a device; or, when training begins, the model has no graph or no removable
            channel, the target is out of reach or met already, the device's compiler is not
            installed, or the length of the training is open.
        TfpruneError: when training begins, the model cannot be exported for the device.

    Source:
        Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks; Yuan & Lin 2006;
        Parikh & Boyd 2014 for the proximal step; Wang et al. 2021, Neural Pruning via Growing
        Regularization; Zhu & Gupta 2017 for the course of the target.
    """

    def __init__(
        self,
        penalty: GroupLasso | float | None = None,
        *,
        filters: float | None = None,
        macs: float | None = None,
        params: float | None = None,
        cycles: float | None = None,
        latency: float | None = None,
        milliseconds: float | None = None,
        sram: float | str | None = None,
        flash: float | str | None = None,
        device: str | Device | None = None,
        importance: Importance = "lasso",
        data: Data | None = None,
        round_to: int = 1,
        begin: float = 0.0,
        end: float = 0.5,
        frequency: int = 100,
    ) -> None:
        targets: dict[str, Any] = {
            "filters": filters,
            "macs": macs,
            "params": params,
            "cycles": cycles,
            "latency": latency,
            "milliseconds": milliseconds,
            "sram": sram,
            "flash": flash,
        }
        given = any(value is not None for value in targets.values())
        target = Target.of(**targets) if given else None
        super().__init__(
            penalty,
            target=None if target is None else _open(target, device, round_to),
            importance=importance,
            data=data,
            begin=begin,
            end=end,
            frequency=frequency,
        )
        if device is not None and (target is None or not target.measured):
            raise UsageError(
                "device is for a target that it tells, such as cycles=0.5: give one, or leave the "
                "device out"
            )

    @property
    def reached(self) -> Measured | None:
        """The device's figures of the model as the training left it, without its dead channels.

        None before the end of the training, and without a target of a device.
        """
        return self.target.reached if isinstance(self.target, DeviceTarget) else None


def _open(target: Target, device: str | Device | None, round_to: int) -> Counted | DeviceTarget:
    if not target.measured:
        return Counted(target, round_to)
    if device is None:
        raise UsageError(
            f"{target.name} is learnt for a device: give one whose compiler estimates it, such as "
            "ethos-u55-128"
        )
    found = devices.find_device(device) if isinstance(device, str) else device
    return DeviceTarget(target, found, round_to)


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
