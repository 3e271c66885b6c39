"""Stages end at the updates of their schedule, and the last one is reached with the target met."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tfprune.filters import ChannelGroups
from tfprune.filters.stages import CountedTarget, Course, StagePlanner, TrainingProgress
from tfprune.filters.targets import Target
from tfprune.training.schedule import polynomial_decay


def planner(importance: str = "l2") -> StagePlanner:
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6), layers.Dense(4), layers.Dense(1, name="out")]
    )
    course = Course(polynomial_decay(0.0, 0.5, begin=10, end=30, frequency=10), per_epoch=8)
    groups = ChannelGroups(model)
    target = CountedTarget(groups, Target("filters", 0.5), round_to=1)
    return StagePlanner(groups, target, importance, course)


def test_each_stage_ends_at_an_update_of_the_schedule_until_the_target_is_met():
    plans, alive = planner(), np.ones(10, bool)
    ends, counts = [], []
    for updates in (0, 10, 20, 30):
        stage = plans.stage(TrainingProgress(updates, alive, np.zeros(10)))
        alive = alive & ~stage.dying
        ends.append(stage.end)
        counts.append(np.count_nonzero(alive))
    assert ends[:3] == [10, 20, 30]
    assert counts[0] == 10
    assert counts[1] < 10
    assert counts[2:] == [5, 5]
    assert stage.last


def test_a_target_that_was_missed_is_planned_for_once_more():
    stage = planner().stage(TrainingProgress(30, np.ones(10, bool), np.zeros(10)))
    assert np.count_nonzero(stage.dying) == 5
    assert (stage.end, stage.last) == (40, False)


def test_gradients_are_collected_first_and_no_stage_goes_beyond_the_epoch():
    plans = planner("taylor")
    gradients = np.arange(10.0, dtype=np.float32)
    first = plans.first_stage(TrainingProgress(16, np.ones(10, bool), np.zeros(10)))
    assert not first.dying.any()
    assert first.end == 20
    stage = plans.stage(TrainingProgress(20, np.ones(10, bool), gradients))
    assert stage.dying.any()
    assert stage.end == 24
