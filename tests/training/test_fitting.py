from __future__ import annotations

import subprocess
import sys
from functools import cache

import hypothesis
import keras
import numpy as np
import pandas as pd
import pydantic
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.tables import slow
from tfprune import TfpruneError, UsageError, data, zoo
from tfprune.tasks import Task, TaskSpec, find_task
from tfprune.training import Training, compile, fit
from tfprune.training.checkpoint import EpochLog
from tfprune.training.learning_rate import RewoundSchedule

STEPS = 10  # of an epoch: 200 digits in batches of 20


def vgg(**changes) -> keras.Model:
    return zoo.build("vgg", (8, 8, 1), 10, **{"width": 4, "blocks": (1, 1), **changes})


def settings(**changes) -> Training:
    return Training(
        **{"epochs": 3, "batch_size": 20, "augment": ("crop", "flip"), "warmup_epochs": 0.5}
        | changes
    )


def state(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def assert_same_state(left: keras.Model, right: keras.Model) -> None:
    for one, other in zip(state(left), state(right), strict=True):
        np.testing.assert_array_equal(one, other)


def rates(training: Training, steps_per_epoch: int = STEPS) -> np.ndarray:
    model = vgg()
    compile(model, training, steps_per_epoch)
    learning_rates = []
    for step in range(training.epochs * steps_per_epoch):
        model.optimizer.iterations.assign(step)
        learning_rates.append(float(model.optimizer.learning_rate))
    return np.array(learning_rates)


class Kill(keras.callbacks.Callback):
    """Interrupts a training at the end of an epoch or within one."""

    def __init__(self, *, epoch: int, batch: int | None = None) -> None:
        super().__init__()
        self.epoch, self.batch, self.now = epoch, batch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, self.batch):
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if self.batch is None and epoch == self.epoch:
            raise KeyboardInterrupt


# Settings


def test_a_training_is_checked_without_keras():
    code = (
        "import sys; from tfprune.training import Training; Training(epochs=1);"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"epoch": 3}, "Extra inputs are not permitted"),
        ({"optimizer": "lion"}, "Input should be 'sgd', 'adam' or 'adamw'"),
        ({"learning_rate": float("inf")}, "finite number"),
        ({"augment": ("flop",)}, "Input should be 'crop' or 'flip'"),
        ({"momentum": 1.0}, "less than 1"),
        ({"schedule": "step"}, 'warmup_epochs needs schedule = "cosine" or "constant"'),
        ({"precision": "float16"}, "Input should be 'float32', 'mixed_bfloat16' or 'mixed_float16"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"clip_norm": 1, "clip_value": 1}, "give clip_norm or clip_value: Keras clips in one"),
        ({"early_stopping": 0}, "greater than or equal to 1"),
        ({"early_stopping_on": "loss"}, "has no meaning without early_stopping"),
        ({"distribution": "model-parallel"}, "Input should be 'data-parallel'"),
        ({"warmup_epochs": 3}, r"warmup_epochs \(3\) must be fewer than epochs \(3\)"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        settings(**changes)


def test_augmentations_are_those_of_the_data():
    for name in data.AUGMENTATIONS:
        assert settings(augment=(name,)).augment == (name,)


# Schedules


def test_a_cosine_falls_to_0():
    learning_rates = rates(settings(learning_rate=0.4, warmup_epochs=0))
    steps = np.arange(3 * STEPS)
    np.testing.assert_allclose(
        learning_rates, 0.2 * (1 + np.cos(np.pi * steps / (3 * STEPS))), rtol=1e-5
    )


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warmup_rises_in_a_line_to_the_learning_rate(schedule):
    learning_rates = rates(settings(learning_rate=0.4, warmup_epochs=1.5, schedule=schedule))
    np.testing.assert_allclose(learning_rates[:15], 0.4 * np.arange(15) / 15, atol=1e-7)
    assert learning_rates[15] == pytest.approx(0.4)
    end = learning_rates[15:]
    assert (np.diff(end) < 0).all() if schedule == "cosine" else np.ptp(end) < 1e-7


def test_constant_stays():
    assert set(rates(settings(warmup_epochs=0, schedule="constant"))) == {np.float32(0.1)}


@pytest.mark.parametrize(("epochs", "steps"), [(4, 10), (2, 2), (3, 7)])
def test_steps_fall_at_half_and_three_quarters(epochs, steps):
    training = settings(epochs=epochs, schedule="step", warmup_epochs=0)
    total = epochs * steps
    expected = [0.1] * (total // 2)
    expected += [0.01] * (total * 3 // 4 - len(expected))
    expected += [0.001] * (total - len(expected))
    np.testing.assert_allclose(rates(training, steps), expected, rtol=1e-6)


# Compiling


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_shrinks_only_kernels(optimizer):
    model = vgg()
    model.get_layer("logits").kernel.regularizer = keras.regularizers.L2(0.1)
    training = settings(optimizer=optimizer, schedule="constant", weight_decay=0.5, warmup_epochs=0)
    compile(model, training, STEPS)
    for weight in model.trainable_weights:
        weight.assign(keras.ops.ones_like(weight))
    # Without a gradient only the decay moves a weight: by learning rate times decay.
    nothing = [keras.ops.zeros_like(weight) for weight in model.trainable_weights]
    model.optimizer.apply(nothing, model.trainable_weights)
    for weight in model.trainable_weights:
        decayed = weight.name == "kernel" and "logits" not in weight.path
        np.testing.assert_allclose(weight, 0.95 if decayed else 1.0, rtol=1e-6)


def test_no_weight_decay_is_the_default():
    for optimizer in ("sgd", "adam", "adamw"):
        model = vgg()
        compile(model, settings(optimizer=optimizer), STEPS)
        assert not model.optimizer.weight_decay


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_gradients_are_clipped(optimizer, precision):
    """By the norm of all of them together, or each entry."""
    changes = {"optimizer": optimizer, "precision": precision, "schedule": "constant"}
    for clip, argument in (("clip_norm", "global_clipnorm"), ("clip_value", "clipvalue")):
        model = vgg()
        compile(model, settings(**changes | {clip: 0.5}), STEPS)
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        assert getattr(inner, argument) == 0.5
    # Without momentum, a step of SGD is the clipped gradient times the learning rate.
    model = vgg()
    plain = settings(
        optimizer="sgd",
        momentum=0.0,
        nesterov=False,
        clip_norm=0.5,
        precision=precision,
        schedule="constant",
        warmup_epochs=0,
        learning_rate=1.0,
    )
    compile(model, plain, STEPS)
    model.optimizer.build(model.trainable_variables)
    before = [weight.numpy() for weight in model.trainable_weights]
    scale = float(model.optimizer.scale_loss(np.float32(1)))
    gradients = [keras.ops.full_like(weight, 3.0 * scale) for weight in model.trainable_weights]
    model.optimizer.apply(gradients, model.trainable_weights)
    moved = [old - new for old, new in zip(before, model.trainable_weights, strict=True)]
    assert np.sqrt(sum(np.square(part).sum() for part in moved)) == pytest.approx(0.5, rel=1e-4)


def test_metrics_of_a_former_compilation_do_not_come_back():
    model = keras.Sequential([image(), *flat()])
    model.compile("sgd", "mse", metrics=["mae"])
    task = find_task(model, TaskSpec(loss="mse", figure="loss", metrics=[]))
    assert "metrics" not in task.compile_arguments()
    compile(model, settings(), STEPS, task=task)
    images = np.zeros((2, 8, 8, 1), np.float32)
    assert set(model.evaluate(images, np.zeros((2, 10)), verbose=0, return_dict=True)) == {"loss"}


def image() -> keras.KerasTensor:
    return keras.Input((8, 8, 1))


def flat(activation: str | None = None) -> list[keras.Layer]:
    return [keras.layers.Flatten(), keras.layers.Dense(10, activation)]


def functional(tensor: keras.KerasTensor, end) -> keras.Model:
    x = tensor
    for layer in flat():
        x = layer(x)
    return keras.Model(tensor, end(x))


@pytest.mark.parametrize(
    ("build", "from_logits"),
    [
        (lambda: keras.Sequential([image(), *flat()]), True),
        (lambda: keras.Sequential([image(), *flat("softmax")]), False),
        (lambda: keras.Sequential([image(), *flat(), keras.layers.Softmax()]), False),
        (lambda: functional(image(), keras.layers.Activation("softmax")), False),
        (lambda: functional(image(), keras.layers.Softmax()), False),
        (lambda: functional(image(), keras.ops.softmax), False),
        (lambda: functional(image(), lambda x: x + keras.ops.softmax(x)), True),
        (lambda: functional(image(), lambda x: x), True),
        (lambda: keras.Sequential([image(), keras.Sequential(flat("softmax"))]), False),
        (lambda: keras.Sequential([image(), keras.Sequential(flat())]), True),
    ],
)
def test_the_loss_fits_logits_or_a_softmax(build, from_logits):
    model = build()
    compile(model, settings(), STEPS)
    assert model.loss.from_logits is from_logits


@pytest.mark.parametrize(
    ("wanted", "steps", "given"), [(4, 10, 2), (5, 10, 5), (99, 10, 10), (6, 7, 1)]
)
def test_steps_per_execution_divide_the_epoch(wanted, steps, given):
    model = vgg()
    compile(model, settings(steps_per_execution=wanted), steps)
    assert model.steps_per_execution == given


# Fitting


@pytest.fixture(scope="module")
def whole(digits) -> tuple[keras.Model, pd.DataFrame]:
    model = vgg()
    return model, fit(model, digits, settings(), seed=7).history


def test_history_has_one_row_for_each_epoch(whole):
    _, history = whole
    assert list(history["epoch"]) == [1, 2, 3]
    assert set(history.columns) == {
        *("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
    }
    assert history["learning_rate"].iloc[-1] == pytest.approx(0.0, abs=1e-7)
    assert (history["seconds"] > 0).all()


def test_digits_are_learnt_and_the_history_is_correct(digits):
    model = vgg(width=8)
    result = fit(model, digits, settings(epochs=6, augment=()), seed=0)
    assert result.history["val_accuracy"].iloc[-1] > 0.8
    guessed = model.predict(digits.validation.inputs.astype(np.float32), verbose=0).argmax(1)
    assert result.history["val_accuracy"].iloc[-1] == pytest.approx(
        (guessed == digits.validation.labels).mean()
    )
    assert result.seconds_per_epoch == result.history["seconds"].median()


def test_same_seed_same_weights_and_another_seed_others(digits, whole):
    again = vgg()
    fit(again, digits, settings(), seed=7)
    assert_same_state(again, whole[0])
    other = vgg()
    fit(other, digits, settings(), seed=8)
    assert (other.get_layer("logits").kernel.numpy() != again.get_layer("logits").kernel).any()


@pytest.mark.parametrize("split", ["test", "validation"])
def test_held_out_data_has_no_effect_on_the_weights(digits, whole, split):
    held_out = getattr(digits, split)
    garbage = data.Arrays(255 - held_out.inputs, (held_out.labels + 1) % 10)
    changed = data.Dataset(**{**vars(digits), split: garbage})
    model = vgg()
    fit(model, changed, settings(), seed=7)
    assert_same_state(model, whole[0])


@pytest.mark.parametrize(
    "kill",
    [slow(Kill(epoch=0, batch=3)), Kill(epoch=1, batch=0), slow(Kill(epoch=2))],
    ids=["before the first backup", "right after it", "before the last"],
)
def test_killed_and_run_again_gives_the_same_bits(digits, whole, tmp_path, kill):
    with pytest.raises(KeyboardInterrupt):
        fit(vgg(), digits, settings(), seed=7, callbacks=[kill], backup_dir=tmp_path)
    # The next process starts from whatever weights; those of the backup count.
    resumed = vgg(seed=99) if kill.epoch else vgg()
    history = fit(resumed, digits, settings(), seed=7, backup_dir=tmp_path).history
    assert_same_state(resumed, whole[0])
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), whole[1].drop(columns="seconds"), check_exact=True
    )


def test_dropout_and_the_slots_of_adam_resume(digits, tmp_path):
    def dropout() -> keras.Model:
        layers = [keras.layers.Flatten(), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        model.layers[-1].kernel.assign(np.full((64, 10), 1e-3))
        return model

    training = settings(optimizer="adamw", learning_rate=1e-3, weight_decay=0.01, epochs=2)
    straight, resumed = dropout(), dropout()
    fit(straight, digits, training, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(
            dropout(),
            digits,
            training,
            seed=0,
            callbacks=[Kill(epoch=1, batch=0)],
            backup_dir=tmp_path,
        )
    fit(resumed, digits, training, seed=0, backup_dir=tmp_path)
    assert_same_state(resumed, straight)


@hypothesis.settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kill_epoch=st.integers(0, 2), batch=st.integers(0, 2), streamed=st.booleans())
@pytest.mark.slow
def test_other_data_and_tasks_resume_wherever_they_are_killed(
    tmp_path_factory, kill_epoch, batch, streamed
):
    """Two inputs, sample weights, dropout; in memory, or in a stream that knows only one order."""
    toy = tables(streamed)
    training = settings(augment=(), optimizer="adam", learning_rate=0.01)
    whole, expected = straight(streamed, training)
    folder = tmp_path_factory.mktemp("backup")
    with pytest.raises(KeyboardInterrupt):
        kill = Kill(epoch=kill_epoch, batch=batch)
        killed = regression()
        task = regressing(killed)
        fit(killed, toy, training, seed=5, task=task, callbacks=[kill], backup_dir=folder)
    again = regression(seed=9 if kill_epoch else 0)
    history = fit(again, toy, training, seed=5, task=regressing(again), backup_dir=folder).history
    assert_same_state(again, whole)
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
    )
    assert {"mae", "val_mae"} <= set(history.columns)


@cache
def straight(streamed: bool, training: Training) -> tuple[keras.Model, pd.DataFrame]:
    model = regression()
    return model, fit(model, tables(streamed), training, seed=5, task=regressing(model)).history


def regressing(model: keras.Model, **changes) -> Task:
    return find_task(model, TaskSpec(**{"kind": "regression"} | changes), tables(False))


def tables(streamed: bool) -> data.Dataset:
    rng = np.random.default_rng(0)
    inputs = {"age": rng.normal(size=(50, 1)), "blood": rng.normal(size=(50, 6))}
    arrays = data.Arrays(inputs, inputs["age"] * 2, rng.uniform(size=50))
    split = arrays
    if streamed:

        def epoch(seed, number):
            return tf.data.Dataset.from_tensor_slices(arrays.examples.given)

        split = data.Stream(epoch, 50, arrays.element_spec)
    return data.Dataset("tables", (), split, split, split, f"tables, streamed: {streamed}")


def regression(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = {"blood": keras.Input((6,), name="blood"), "age": keras.Input((1,), name="age")}
    x = keras.layers.Concatenate()(list(inputs.values()))
    x = keras.layers.Dropout(0.2, seed=4)(keras.layers.Dense(8, "relu")(x))
    return keras.Model(inputs, keras.layers.Dense(1)(x))


@pytest.mark.slow
def test_another_tasks_backup_is_refused(tmp_path):
    training = settings(augment=(), epochs=1, warmup_epochs=0)
    model = regression()
    fit(model, tables(False), training, seed=5, task=regressing(model), backup_dir=tmp_path)
    huber = regressing(model, loss="huber")
    with pytest.raises(TfpruneError, match="belongs to a training of another model or with other"):
        fit(model, tables(False), training, seed=5, task=huber, backup_dir=tmp_path)


def test_a_finished_training_is_not_done_twice(digits, tmp_path):
    training = settings(epochs=1)
    first, second = vgg(), vgg(seed=99)
    before = fit(first, digits, training, seed=7, backup_dir=tmp_path).history
    killer = Kill(epoch=0, batch=0)
    after = fit(second, digits, training, seed=7, callbacks=[killer], backup_dir=tmp_path).history
    pd.testing.assert_frame_equal(before, after, check_exact=True)
    assert_same_state(second, first)


@pytest.mark.slow
def test_a_backup_is_one_file_that_is_whole_or_absent(digits, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left")

    training = settings(epochs=2)
    fit(vgg(), digits, training, seed=7, backup_dir=tmp_path)
    (backup,) = tmp_path.iterdir()
    before = backup.read_bytes()
    monkeypatch.setattr("os.fsync", full)
    model = vgg()
    log = EpochLog(pd.DataFrame(), tmp_path, "other settings")
    compile(model, training, STEPS)
    log.set_model(model)
    with pytest.raises(TfpruneError, match="no space left"):
        log.on_epoch_end(0, {"loss": 1.0})
    assert backup.read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [{"seed": 8}, slow({"training": settings(learning_rate=0.2)}), slow({"model": vgg(width=5)})],
    ids=["seed", "settings", "model"],
)
def test_another_trainings_backup_is_refused(digits, tmp_path, other):
    with pytest.raises(KeyboardInterrupt):
        fit(vgg(), digits, settings(), seed=7, callbacks=[Kill(epoch=1)], backup_dir=tmp_path)
    given = {"model": vgg(), "dataset": digits, "training": settings(), "seed": 7, **other}
    with pytest.raises(TfpruneError, match="belongs to a training of another model or with other"):
        fit(**given, backup_dir=tmp_path)


def test_a_damaged_backup_is_named(digits, tmp_path):
    (tmp_path / "training.npz").write_bytes(b"no archive")
    with pytest.raises(TfpruneError, match=r"training.npz cannot be read .*: delete it") as error:
        fit(vgg(), digits, settings(), seed=7, backup_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_steps_per_execution_change_no_weight(digits, whole):
    model = vgg()
    # 4 does not divide the 10 steps of an epoch.
    fit(model, digits, settings(steps_per_execution=4), seed=7)
    assert_same_state(model, whole[0])


def test_callbacks_log_into_the_history_and_their_work_is_saved(digits, tmp_path):
    class Zero(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.get_layer("logits").kernel.assign(np.zeros((8, 10)))
            logs["sparsity"] = epoch / 10

    history = fit(
        vgg(), digits, settings(), seed=0, callbacks=[Zero()], backup_dir=tmp_path
    ).history
    assert list(history["sparsity"]) == [0.0, 0.1, 0.2]
    restored = vgg()
    fit(restored, digits, settings(), seed=0, backup_dir=tmp_path)
    assert not restored.get_layer("logits").kernel.numpy().any()


def test_a_loss_that_is_not_finite_ends_the_training(digits, tmp_path):
    training = settings(learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(TfpruneError, match=r"the loss became (nan|inf) in epoch \d") as error:
        fit(vgg(), digits, training, seed=0, backup_dir=tmp_path)
    assert "\n" not in str(error.value)
    assert "lower learning_rate" in str(error.value)


def test_silence_is_the_default_and_progress_goes_to_stderr(digits, capsys):
    training = settings(epochs=1, warmup_epochs=0)
    fit(vgg(), digits, training, seed=0)
    assert capsys.readouterr() == ("", "")
    fit(vgg(), digits, training, seed=0, progress="dense")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dense: epoch 1/1")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: zoo.build("conv2", (9, 8, 1), 10, width=2), "takes .*9, 8, 1.*, and digits has"),
        (lambda: zoo.build("conv2", (8, 8, 1), 9, width=2), "and digits has 10 classes"),
        (
            lambda: keras.Sequential([image(), keras.layers.Conv2D(10, 1)]),
            "may be a segmentation or a regression: give a task",
        ),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused(digits, model, message):
    with pytest.raises(UsageError, match=message):
        fit(model(), digits, settings(), seed=0)


@pytest.mark.slow
def test_a_rewound_training_equals_the_end_of_a_whole_one(digits):
    """The same weights, schedule, order of data and augmentation, from the first epoch on."""
    whole, late = vgg(), vgg()
    kept = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                kept.extend(self.model.get_weights())

    # Without momentum the optimizer has no state but its step.
    training = settings(momentum=0.0, nesterov=False)
    fit(whole, digits, training, seed=3, callbacks=[Keep()])
    late.set_weights(kept)
    history = fit(late, digits, training, seed=3, first_epoch=1).history
    assert history["epoch"].tolist() == [2, 3]
    for one, other in zip(whole.get_weights(), late.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_rewound_training_enters_the_schedule_late_with_a_new_optimizer(digits):
    """Adam's first step is one learning rate long: its moments are corrected for being fresh."""
    model = vgg()
    training = settings(
        optimizer="adam", learning_rate=0.01, schedule="cosine", warmup_epochs=0, epochs=4
    )
    moved = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.before = model.get_layer("logits").get_weights()[1]

        def on_train_batch_end(self, batch, logs=None):
            if not moved:
                moved.append(model.get_layer("logits").get_weights()[1] - self.before)

    fit(model, digits, training, seed=3, first_epoch=2, callbacks=[Watch()])
    # Halfway, the cosine has come down to one half.
    np.testing.assert_allclose(np.abs(moved[0]), 0.005, rtol=1e-2)


def test_a_rewound_schedule_is_saved_with_its_optimizer():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    late = RewoundSchedule(schedule, 30)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(late))
    for step in (0, 20, 70):
        assert float(again(step)) == float(late(step)) == float(schedule(step + 30))


@pytest.mark.slow
def test_a_killed_rewound_training_resumes_to_the_same_weights(digits, tmp_path):
    whole, killed = vgg(), vgg()
    expected = fit(whole, digits, settings(), seed=3, first_epoch=1).history
    with pytest.raises(KeyboardInterrupt):
        fit(
            killed,
            digits,
            settings(),
            seed=3,
            first_epoch=1,
            callbacks=[Kill(epoch=2, batch=3)],
            backup_dir=tmp_path,
        )
    again = vgg()
    history = fit(again, digits, settings(), seed=3, first_epoch=1, backup_dir=tmp_path).history
    assert_same_state(again, whole)
    assert history["epoch"].tolist() == expected["epoch"].tolist() == [2, 3]
