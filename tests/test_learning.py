"""Training toward a target of a device ends with dead channels whose removal meets it."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tests.devices.models import chain, drawn_scores
from tfprune.devices import find_device, vela
from tfprune.devices.planning import measured_value
from tfprune.devices.removals import Removals
from tfprune.errors import UsageError
from tfprune.filters import ChannelGroups, RemovalPlan, Target
from tfprune.learning import DeviceTarget

pytestmark = pytest.mark.skipif(not vela.installed(), reason="ethos-u-vela is not installed")
DEVICE = find_device("ethos-u55-128")


def fit(model: keras.Model, learner: tfprune.LearnStructure) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (64, *model.input_shape[1:])).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    y = x.mean((1, 2)).argmax(-1)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[learner])


# An untrained net has no classes.
@pytest.mark.filterwarnings("ignore:export")
@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        pytest.param("flash", "12 KiB", 0.97, marks=pytest.mark.slow),
        pytest.param("cycles", 0.6, 0.85, marks=pytest.mark.slow),
    ],
)
def test_the_exported_file_meets_what_was_learnt_for(
    name: str, value: float | str, near: float, tmp_path: Path
) -> None:
    """Cycles of a net of two convolutions fall in few steps; bytes fall evenly."""
    model = chain(8, (32, 48))
    learner = tfprune.LearnStructure(**{name: value}, device=DEVICE, end=0.6, frequency=4)
    fit(model, learner)
    target = Target.of(**{name: value})
    assert learner.reached is not None
    assert near <= measured_value(target, learner.reached) / target.value <= 1
    slim = tfprune.slim(model, dead=True)
    images = np.random.default_rng(1).uniform(0, 255, (40, *model.input_shape[1:]))
    (file,) = tfprune.export(slim, tmp_path, ["tflite-int8"], images)
    (told,) = DEVICE.measure([file.path])
    assert told.figures["cycles"] == learner.reached.slim["cycles"]
    # The ranges of other images, and the name of the model, are stored.
    assert abs(told.figures["flash_bytes"] - learner.reached.slim["flash_bytes"]) <= 128
    assert "apply" not in vars(model.optimizer)


@pytest.mark.slow
def test_what_is_dead_stays_dead_in_each_stage_and_the_last_one_meets_the_target() -> None:
    model = chain(8, (32, 48))
    target = DeviceTarget(Target.of(cycles=0.6), DEVICE)
    target.prepare(model)
    groups = ChannelGroups(model)
    stages = target.bound(groups)
    ranked = drawn_scores(groups, 0)
    counts, dead = [], np.zeros(groups.unit_count, bool)
    for keep, last in ((1.0, False), (0.8, False), (0.61, False), (0.6, True), (0.6, True)):
        alive = stages.alive(ranked, dead, keep, last=last)
        assert not (alive & dead).any()
        # Its ranking is turned around between stages: the dead are not those that rank last.
        dead, ranked = ~alive, ranked[::-1].copy()
        counts.append(np.count_nonzero(dead))
    assert counts[0] == 0 < counts[1]
    assert counts == sorted(counts)
    assert counts[3] == counts[4]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        target.finish(tfprune.filters.rebuild(RemovalPlan(groups, ~dead)))


@pytest.mark.slow
def test_a_target_that_training_cannot_reach_is_refused_before_it() -> None:
    model = chain()
    model.compile("sgd", "mse")
    for cycles, message in ((0.001, "cycles=0.001 cannot be reached"), (1.0, "cycles=1 is met")):
        learner = tfprune.LearnStructure(cycles=cycles, device=DEVICE)
        with pytest.raises(UsageError, match=message):
            learner.set_model(model)


@pytest.mark.slow
def test_a_target_that_was_missed_is_said_at_the_end() -> None:
    model = chain(8, (32, 48))
    target = DeviceTarget(Target.of(cycles=0.6), DEVICE)
    target.prepare(model)
    # Nothing died.
    with pytest.warns(UserWarning, match=r"learn: cycles=0.6 was not met: .* has 1, cycles 21,544"):
        target.finish(model)
    assert target.reached is not None
    assert target.reached.slim == target.reached.original


def test_plans_remove_what_is_gone_whatever_it_scores() -> None:
    groups = ChannelGroups(chain())
    gone = np.zeros(groups.unit_count, bool)
    (first, *_) = groups
    gone[first.units[:3]] = True
    removals = Removals(groups, np.arange(groups.unit_count)[::-1] + 1.0, gone=gone, round_to=4)
    assert removals.least.tolist() == [3, *[0] * (len(groups) - 1)]
    assert not removals.plan(removals.least).alive[gone].any()
    assert removals.ladders[0].removed.tolist() == [3, 4, 8]
    assert removals.ladders[0].losses[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycles": 0.5}, "cycles is learnt for a device: give one whose compiler estimates it"),
        ({"macs": 0.5, "device": DEVICE}, "device is for a target that it tells"),
        ({"penalty": 0.1, "device": DEVICE}, "device is for a target that it tells"),
        ({"cycles": 0.5, "device": "cpu"}, "device cpu cannot be planned for"),
        ({"sram": 0.5, "cycles": 0.5, "device": DEVICE}, "give exactly one target of"),
    ],
)
def test_contradictions_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        tfprune.LearnStructure(**options)
    assert message in str(error.value)
