"""What each kind of step gives to the training, and where it starts from."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfprune.pipeline.steps import Context, training
from tfprune.pipeline.steps.training import RetrainStep
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

    def fitted(step, model, context, callbacks, first_epoch=0):
        found.append((model, callbacks))
        return model, {}

    monkeypatch.setattr(training, "fit", fitted)
    return found


def _kernels(model):
    return [np.asarray(variable) for _, variable in prunable(model)]


@pytest.mark.parametrize("rewind", ["finetune", "lr", "weights", "reinit", "random"])
def test_a_retraining_starts_where_it_says(digits, tmp_path, trained, rewind):
    source, origin = prune_once(_model(), 0.5), _model()
    starts = []
    for seed in (0, 0, 1):
        context = Context(digits, seed, tmp_path, origin=lambda epoch, seed: origin)
        RetrainStep(kind="retrain", rewind=rewind, **TRAIN).perform(source, context)
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
    model, record = step.perform(source, Context(digits, 0, tmp_path))
    assert record["epochs"] == 1
    for new, old in zip(_kernels(model), before, strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert np.mean(new[old != 0] != old[old != 0]) > 0.3
