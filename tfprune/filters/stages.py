"""The stages in which a target is approached while a model trains, each planned when it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from tfprune.data.adapting import Data
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, from_training, looked_at, scores
from tfprune.filters.plan import Limits, plan_cost
from tfprune.filters.targets import Target, counted_cost
from tfprune.filters.unit_weights import removable_units
from tfprune.training.schedule import Schedule, sparsity_at

_NEVER = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, eq=False)
class Stage:
    """What shall be dead, and by when.

    Attributes:
        dying: bool (units,), the units that shall be dead at the end, in the order of
            `removable_units`.
        end: the state before the update of this number, counted from 0.
        last: whether the target is met, and no later stage takes anything away.
    """

    dying: np.ndarray
    end: int
    last: bool = False


class TrainingProgress(NamedTuple):
    """How far a training is.

    Attributes:
        updates: of the optimizer, so far.
        alive: bool (units,), the units that live, in the order of `removable_units`.
        gradients: float32 (units,), the squares of gradient times weight, summed over the updates
            of the stage; zeros where nothing collects them.
    """

    updates: int
    alive: np.ndarray
    gradients: np.ndarray


@dataclass(frozen=True)
class Course:
    """How a training runs, in updates of the optimizer.

    Attributes:
        schedule: the share of the cost that is gone at an update; it needs tfmot's `begin_step`,
            `end_step` and `frequency`, which are the stages.
        per_epoch: updates in an epoch.
    """

    schedule: Schedule
    per_epoch: int


class StageTarget(Protocol):
    """What a training approaches in stages."""

    @property
    def share(self) -> float:
        """The share of the cost that is left when it is met, 0 to 1."""

    def alive(self, ranked: np.ndarray, dead: np.ndarray, keep: float, *, last: bool) -> np.ndarray:
        """The units that may live so that no more than a share of the cost is left.

        Args:
            ranked: float (groups.unit_count,), the importance of each unit.
            dead: bool (groups.unit_count,), the units that are gone whatever they score.
            keep: the share of the cost that may be left, 0 to 1.
            last: whether that is the target itself, and no step on the way to it.

        Returns:
            bool (groups.unit_count,).
        """


class OpenTarget(Protocol):
    """A target before a training begins."""

    def prepare(self, model: keras.Model) -> None:
        """Looks at the model before it trains."""

    def bound(self, groups: ChannelGroups) -> StageTarget:
        """The target for the channel groups of the model that trains."""

    def finish(self, model: keras.Model) -> None:
        """Looks at the model after its training."""


@dataclass(frozen=True)
class Counted:
    """A share of what is counted in the model, for `StructureLearner`.

    Attributes:
        target: `filters`, `macs` or `params`.
        round_to: the sizes of groups become multiples of this where they shrink.
    """

    target: Target
    round_to: int = 1

    def prepare(self, model: keras.Model) -> None:
        """Nothing has to be known beforehand."""

    def bound(self, groups: ChannelGroups) -> CountedTarget:
        """The target for the channel groups of the model that trains."""
        return CountedTarget(groups, self.target, self.round_to)

    def finish(self, model: keras.Model) -> None:
        """What is counted is met when its last stage is over."""


class CountedTarget:
    """A share of what is counted in the model: `filters`, `macs` or `params`.

    Args:
        groups: the channel groups of the model.
        target: the share to keep.
        round_to: the sizes of groups become multiples of this where they shrink.
    """

    def __init__(self, groups: ChannelGroups, target: Target, round_to: int) -> None:
        self._limits = Limits(groups, round_to)
        self._target = target

    @property
    def share(self) -> float:
        """The share that is left when it is met."""
        return self._target.value

    def alive(self, ranked: np.ndarray, dead: np.ndarray, keep: float, *, last: bool) -> np.ndarray:
        """The units that may live; see `StageTarget`."""
        # What is dead goes first, whatever it scores: it will not come back.
        ranked = np.where(dead, -1.0, ranked)
        groups, name = self._limits.groups, self._target.name
        return plan_cost(self._limits, ranked, counted_cost(groups, name), keep, name).alive


class StagePlanner:
    """Plans which units die in each stage of a training, so that a target is met at its end.

    Importances that come from gradients, such as `taylor`, take those of the training itself, which
    do not outlive an epoch, so that they need not be saved: after the beginning of an epoch comes
    a stage that only collects them, and no stage goes beyond the end of the epoch.

    Args:
        groups: the channel groups of the model; its weights are looked at when a stage begins.
        target: what is approached.
        importance: what is removed first, see `tfprune.slim`.
        course: how the training runs.
        data: the examples that the importance looks at; see `scores`.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        target: StageTarget,
        importance: Importance,
        course: Course,
        data: Data | None = None,
    ) -> None:
        self._groups = groups
        self._units = removable_units(groups)
        self._target = target
        self._importance = importance
        self._course = course
        self._collects = from_training(importance)
        # Read once: each stage scores anew.
        self._data = None if self._collects else looked_at(groups.model, importance, data)
        self._epoch_end = 0

    def first_stage(self, progress: TrainingProgress) -> Stage:
        """The stage that begins with an epoch; nothing of the epochs before is needed for it."""
        if not self._collects:
            return self.stage(progress)
        self._epoch_end = progress.updates + self._course.per_epoch
        rule: Any = self._course.schedule
        collecting = min(rule.frequency, max(1, self._course.per_epoch // 2))
        return Stage(self._none(), progress.updates + collecting)

    def stage(self, progress: TrainingProgress) -> Stage:
        """The stage that begins now."""
        stage = self._scheduled(progress)
        if self._collects and not stage.last:
            return Stage(stage.dying, min(stage.end, self._epoch_end))
        return stage

    def _scheduled(self, progress: TrainingProgress) -> Stage:
        rule: Any = self._course.schedule
        step = progress.updates
        if step < rule.begin_step:
            return Stage(self._none(), rule.begin_step)
        if step >= rule.end_step:
            # A target that its last stage could not plan for is met a stage later.
            dying = self._dying(rule.end_step, progress)
            if dying.any():
                return Stage(dying, step + rule.frequency)
            return Stage(dying, _NEVER, last=True)
        passed = (step - rule.begin_step) // rule.frequency + 1
        end = min(rule.begin_step + passed * rule.frequency, rule.end_step)
        return Stage(self._dying(end, progress), end)

    def _none(self) -> np.ndarray:
        return np.zeros(self._units.size, bool)

    def _dying(self, end: int, progress: TrainingProgress) -> np.ndarray:
        """The units that live and must die for no more to be left than the schedule allows."""
        rule: Any = self._course.schedule
        dead = np.zeros(self._groups.unit_count, bool)
        dead[self._units[~progress.alive]] = True
        keep = 1 - sparsity_at(rule, end)
        ranked = self._scores(progress.gradients)
        alive = self._target.alive(ranked, dead, keep, last=end >= rule.end_step)
        return ~alive[self._units] & progress.alive

    def _scores(self, gradients: np.ndarray) -> np.ndarray:
        if not self._collects:
            return scores(self._groups, self._importance, self._data)
        return scores(self._groups, lambda groups: self._spread(np.sqrt(gradients)))

    def _spread(self, values: np.ndarray) -> np.ndarray:
        """Values of the removable units as values of all units; the others have 0."""
        spread = np.zeros(self._groups.unit_count)
        spread[self._units] = values
        return spread
