"""What each kind of step gives to the training, and where it starts from."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfprune.pipeline import steps
from tfprune.pipeline.kinds import PruneStep, RetrainStep
from tfprune.pipeline.steps import Bench, perform
from tfprune.weights import prunable, prune_once

TRAIN = {"epochs": 4, "batch_size": 20, "learning_rate": 0.05}


def _model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="relu", name="one"),
            keras.layers.Dense(10, name="two"),
        ]
    )


@pytest.fixture
def trained(monkeypatch):
    """What the trainings of steps are given, in place of doing them: (model, callbacks)."""
    found = []

    def fitted(step, model, bench, callbacks, first_epoch=0):
        found.append((model, callbacks))
        return model, {}

    monkeypatch.setattr(steps, "_fitted", fitted)
    return found


@pytest.mark.parametrize(("begin", "end"), [(0.0, 0.5), (0.25, 0.5), (0.5, 1.0)])
@pytest.mark.parametrize("frequency", [None, 3])
def test_a_ramp_is_the_part_of_the_training_that_was_asked_for(
    digits, tmp_path, trained, begin, end, frequency
):
    step = PruneStep(
        kind="prune", sparsity=0.6, initial=0.1, begin=begin, end=end, frequency=frequency, **TRAIN
    )
    perform(step, _model(), Bench(digits, 0, tmp_path))
    ((_, (pruner,)),) = trained
    total = 4 * -(-len(digits.train) // 20)
    schedule = pruner.schedule
    assert (schedule.begin_step, schedule.end_step) == (round(begin * total), round(end * total))
    assert schedule.begin_step < schedule.end_step
    assert (schedule.initial_sparsity, schedule.final_sparsity) == (0.1, 0.6)
    ramp = schedule.end_step - schedule.begin_step
    assert schedule.frequency == (frequency or max(1, ramp // 20))


def _kernels(model):
    return [np.asarray(variable) for _, variable in prunable(model)]


@pytest.mark.parametrize("rewind", ["finetune", "lr", "weights", "reinit", "random"])
def test_a_retraining_starts_where_it_says(digits, tmp_path, trained, rewind):
    source, origin = prune_once(_model(), 0.5), _model()
    starts = []
    for seed in (0, 0, 1):
        bench = Bench(digits, seed, tmp_path, origin=lambda epoch, seed: origin)
        perform(RetrainStep(kind="retrain", rewind=rewind, **TRAIN), source, bench)
        starts.append(_kernels(trained[-1][0]))
    for start, same, other, old, early in zip(
        *starts, _kernels(source), _kernels(origin), strict=True
    ):
        assert np.count_nonzero(start) == np.count_nonzero(old)
        np.testing.assert_array_equal(start, same)
        lives = start != 0
        if rewind in ("finetune", "lr"):
            np.testing.assert_array_equal(start, old)
        elif rewind == "weights":
            np.testing.assert_array_equal(start, np.where(old != 0, early, 0))
        else:
            # Drawn anew, and from the seed.
            assert not np.isclose(start[lives], old[lives]).any()
            assert not np.isclose(start[lives], other[lives]).any()
        moved = not np.array_equal(lives, old != 0)
        assert moved == (rewind == "random")


@pytest.mark.parametrize("rewind", ["lr", "reinit"])
def test_a_retraining_trains_what_lives(digits, tmp_path, rewind):
    source = prune_once(_model(), 0.5)
    before = _kernels(source)
    step = RetrainStep(kind="retrain", rewind=rewind, **{**TRAIN, "epochs": 1})
    model, record = perform(step, source, Bench(digits, 0, tmp_path))
    assert record["epochs"] == 1
    for new, old in zip(_kernels(model), before, strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert np.mean(new[old != 0] != old[old != 0]) > 0.3
