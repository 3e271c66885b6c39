"""What each kind of step gives to the training, and where it starts from."""

from __future__ import annotations

import numpy as np
import pytest

import tfprune
from tfprune.pipeline.steps import Context
from tfprune.pipeline.steps.training import (
    RetrainStep,
    TrainStep,
    describe_training,
    kept_model,
)
from tfprune.weights import prunable, prune_once

from .conftest import TRAIN, tiny_net


def _kernels(model):
    return [np.asarray(variable) for _, variable in prunable(model)]


@pytest.mark.parametrize("rewind", ["finetune", "lr", "weights", "reinit", "random"])
def test_a_retraining_starts_where_it_says(digits, tmp_path, trained, rewind):
    source, origin = prune_once(tiny_net(), 0.5), tiny_net()
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
    source = prune_once(tiny_net(), 0.5)
    before = _kernels(source)
    step = RetrainStep(kind="retrain", rewind=rewind, **{**TRAIN, "epochs": 1})
    model, record = step.perform(source, Context(digits, 0, tmp_path))
    assert record["epochs"] == 1
    for new, old in zip(_kernels(model), before, strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert np.mean(new[old != 0] != old[old != 0]) > 0.3


def _train_step(**changes) -> TrainStep:
    return TrainStep(kind="train", **TRAIN | changes)


def test_a_step_in_16_bits_that_stops_early_keeps_float32_models_and_tells_its_best_epoch(
    digits, tmp_path
):
    """The kept epochs are ordinary models, as is what comes out."""
    step = _train_step(
        epochs=5, precision="mixed_bfloat16", early_stopping=1, keep=[2], learning_rate=0.2
    )
    model, record = step.perform(tiny_net(), Context(digits, 0, tmp_path))
    kept = tfprune.load(kept_model(tmp_path, 2))
    for each in (model, kept):
        assert {layer.dtype_policy.name for layer in each._flatten_layers()} == {"float32"}
        assert {weight.dtype for weight in each.weights} == {"float32"}
    accuracies = record["history"]["val_accuracy"]
    assert record["best_epoch"] == int(np.argmax(accuracies)) + 1
    answers = np.asarray(model(digits.validation.inputs.astype(np.float32))).argmax(1)
    assert (answers == digits.validation.labels).mean() == pytest.approx(max(accuracies))
    answers = np.asarray(kept(digits.validation.inputs.astype(np.float32))).argmax(1)
    assert (answers == digits.validation.labels).mean() == pytest.approx(accuracies[1])


def test_a_step_that_does_not_stop_early_records_what_it_did():
    """So records of earlier versions and of this one have the same keys."""
    assert not _train_step().model_dump(exclude_defaults=True).keys() & {
        "precision",
        "clip_norm",
        "clip_value",
        "early_stopping",
        "early_stopping_on",
        "distribution",
    }


def test_an_epoch_that_may_not_be_trained_cannot_be_kept():
    assert _train_step(early_stopping=1, keep=[2]).keep == (2,)
    with pytest.raises(ValueError, match="may stop after epoch 2"):
        _train_step(early_stopping=1, keep=[1, 3])


def test_a_retraining_trains_the_epochs_that_are_left():
    step = RetrainStep(kind="retrain", rewind="lr", epoch=2, **{**TRAIN, "epochs": 5})
    assert step.epochs_to_train == 3


def test_a_step_tells_how_it_trains():
    sentence = describe_training(
        _train_step(
            precision="mixed_float16",
            clip_norm=1.0,
            early_stopping=3,
            early_stopping_on="loss",
            distribution="data-parallel",
        )
    )
    assert sentence.endswith(
        ", computed in mixed_float16, gradients clipped to a norm of 1, stopped when the "
        "validation loss has not improved for 3 epochs, each batch shared among the GPUs"
    )
