from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune import TfpruneError, data
from tfprune.training import Training, fit
from tfprune.training.early_stopping import BestEpoch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
# No input tells the class: a small net learns the train split by heart, and gets worse elsewhere.
Y = RNG.integers(0, 2, 60)
EPOCHS, PATIENCE = 12, 2


@cache
def dataset() -> data.Dataset:
    splits = [data.Arrays(X[rows], Y[rows]) for rows in (slice(40), slice(40, 60), slice(20))]
    return data.Dataset("coins", ("heads", "tails"), *splits, "coins")


def net(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, "relu", name="hidden"),
            layers.Dropout(0.1, seed=3),
            layers.Dense(2),
        ]
    )


def training(**changes) -> Training:
    given = {"epochs": EPOCHS, "batch_size": 10, "optimizer": "adam", "learning_rate": 0.05}
    return Training(**given | {"early_stopping": PATIENCE, "early_stopping_on": "loss"} | changes)


def val_loss(model: keras.Model) -> float:
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
    split = dataset().validation
    return model.evaluate(split.inputs, split.targets, batch_size=10, verbose=0)


def pruner(end: int) -> tfprune.PruneWeights:
    return tfprune.PruneWeights(tfprune.polynomial_decay(0.0, 0.5, 0, end, frequency=2))


def test_it_stops_after_the_patience_and_the_best_weights_are_back() -> None:
    model = net()
    result = fit(model, dataset(), training(), seed=0)
    losses = result.history["val_loss"].to_numpy()
    assert len(losses) < EPOCHS
    assert result.best_epoch == losses.argmin() + 1 == len(losses) - PATIENCE
    assert val_loss(model) == pytest.approx(losses.min(), rel=1e-6)
    assert val_loss(model) != pytest.approx(losses[-1], rel=1e-3)


def test_the_figure_of_the_task_decides_in_its_direction() -> None:
    model = net()
    changes = {"early_stopping_on": "figure", "early_stopping": EPOCHS}
    result = fit(model, dataset(), training(**changes), seed=0)
    accuracies = result.history["val_accuracy"].to_numpy()
    assert len(accuracies) == EPOCHS  # It never waits that long, and the best epoch is back.
    assert result.best_epoch == accuracies.argmax() + 1 < EPOCHS
    split = dataset().validation
    answers = np.asarray(model(split.inputs)).argmax(1)
    assert (answers == split.targets).mean() == pytest.approx(accuracies.max())


def test_without_it_all_epochs_are_trained_and_the_last_weights_stay() -> None:
    model = net()
    result = fit(
        model, dataset(), training(early_stopping=None, early_stopping_on="figure"), seed=0
    )
    assert result.best_epoch == len(result.history) == EPOCHS
    assert val_loss(model) == pytest.approx(result.history["val_loss"].iloc[-1], rel=1e-6)


@pytest.mark.parametrize("end", [4, 22, 46])
def test_it_waits_until_the_schedule_has_arrived_and_zeros_stay(end: int, recwarn) -> None:
    """The validation loss rises from an early epoch on; 4 steps make an epoch."""
    model = net()
    result = fit(model, dataset(), training(), seed=0, callbacks=[pruner(end)])
    losses = result.history["val_loss"].to_numpy()
    arrived = int(np.ceil(end / 4))
    assert result.best_epoch >= arrived
    assert result.best_epoch == losses[arrived - 1 :].argmin() + arrived
    kernel = model.get_layer("hidden").get_weights()[0]
    assert np.mean(kernel == 0) == 0.5
    assert val_loss(model) == pytest.approx(losses[result.best_epoch - 1], rel=1e-6)
    # The weights that came back have trained with the final masks: nobody has to warn.
    assert not [w for w in recwarn if "PruneWeights" in str(w.message)]


def test_it_waits_until_channels_are_learnt() -> None:
    model = net()
    learner = tfprune.LearnStructure(filters=0.5, end=0.6, frequency=2)
    result = fit(model, dataset(), training(), seed=0, callbacks=[learner])
    kernel, bias = model.get_layer("hidden").get_weights()
    assert (~kernel.any(axis=0) & (bias == 0)).sum() == 6
    assert result.best_epoch >= 0.6 * EPOCHS


def test_a_schedule_that_does_not_arrive_is_said() -> None:
    model = net()
    with pytest.warns(UserWarning) as warned:
        result = fit(
            model, dataset(), training(epochs=2, early_stopping=1), seed=0, callbacks=[pruner(999)]
        )
    said = [str(w.message) for w in warned if str(w.message).startswith("early_stopping: no epoch")]
    assert len(said) == 1
    assert result.best_epoch == len(result.history) == 2


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    epoch=st.integers(0, PATIENCE + 1),
    batch=st.integers(0, 3),
    pruned_in_16_bits=st.booleans(),
)
@pytest.mark.slow
def test_killed_in_any_epoch_and_run_again_gives_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory, epoch: int, batch: int, pruned_in_16_bits: bool
) -> None:
    masks = half = pruned_in_16_bits

    class Kill(keras.callbacks.Callback):
        now = -1

        def on_epoch_begin(self, number, logs=None):
            self.now = number

        def on_train_batch_end(self, number, logs=None):
            if (self.now, number) == (epoch, batch):
                raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("backup")
    chosen = training(precision="mixed_bfloat16" if half else "float32")
    whole, expected = _straight(masks, half)
    callbacks = [pruner(12)] if masks else []
    with contextlib.suppress(KeyboardInterrupt):
        fit(net(), dataset(), chosen, seed=0, callbacks=[*callbacks, Kill()], backup_dir=folder)
    resumed = net(seed=0 if epoch == 0 else 9)
    callbacks = [pruner(12)] if masks else []
    result = fit(resumed, dataset(), chosen, seed=0, callbacks=callbacks, backup_dir=folder)
    assert result.best_epoch == expected.best_epoch
    pd.testing.assert_frame_equal(
        result.history.drop(columns="seconds"),
        expected.history.drop(columns="seconds"),
        check_exact=True,
    )
    for one, other in zip(resumed.get_weights(), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@cache
def _straight(masks: bool, half: bool):
    model = net()
    chosen = training(precision="mixed_bfloat16" if half else "float32")
    result = fit(model, dataset(), chosen, seed=0, callbacks=[pruner(12)] if masks else [])
    return model.get_weights(), result


def test_a_training_that_had_stopped_is_not_continued(tmp_path: Path) -> None:
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.epochs += 1

    first, second, count = net(), net(seed=9), Count()
    before = fit(first, dataset(), training(), seed=0, backup_dir=tmp_path)
    after = fit(second, dataset(), training(), seed=0, backup_dir=tmp_path, callbacks=[count])
    assert count.epochs == 0
    assert after.best_epoch == before.best_epoch
    pd.testing.assert_frame_equal(before.history, after.history, check_exact=True)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_figure_that_is_not_logged_is_named() -> None:
    model = net()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    best = BestEpoch("val_dice", "higher", 1)
    with pytest.raises(TfpruneError, match="waits for 'val_dice', and the training has loss"):
        model.fit(X, Y, verbose=0, callbacks=[best])


def test_nan_is_not_an_improvement() -> None:
    model = net()
    best = BestEpoch("val_loss", "lower", 2)
    best.set_model(model)
    for epoch, value in enumerate([np.nan, 3.0, np.nan, 2.0, np.nan]):
        best.on_epoch_end(epoch, {"val_loss": value})
    assert best.epoch == 4
    assert not getattr(model, "stop_training", False)
    best.on_epoch_end(5, {"val_loss": 2.0})  # An equal one neither.
    assert model.stop_training
