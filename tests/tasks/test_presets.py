"""What a kind brings: the figure that Keras' own evaluation gives, of any batches and weights."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tables import slow
from tests.tasks.small import CASES, COUNT, dataset, head, inputs_of, two_outputs
from tfprune import data, figures
from tfprune.errors import UsageError
from tfprune.formats import load
from tfprune.formats.keras_file import KerasRuntime
from tfprune.measure import Evaluation, evaluate
from tfprune.tasks import Task, TaskSpec, find_task


def agree(model: keras.Model, task: Task, toys: data.Dataset, batch_size: int) -> Evaluation:
    """Evaluates a runtime and its model; every number is the same."""
    task.check(model, toys)
    model.compile("sgd", **task.compile_arguments())
    batches = data.plain_batches(toys.test, batch_size)
    expected = model.evaluate(batches, verbose=0, return_dict=True)
    found = evaluate(KerasRuntime(model), toys.test, task, batch_size=batch_size)
    assert found.examples == len(toys.test)
    assert found.value == pytest.approx(expected[task.figure.name], rel=1e-4, abs=1e-5)
    assert found.loss == pytest.approx(expected["loss"], rel=1e-4, abs=1e-5)
    for name, value in found.metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-5)
    assert set(found.metrics) <= set(expected)
    return found


@pytest.mark.parametrize("weighted", [slow(False), True], ids=["", "weights"])
@pytest.mark.parametrize("name", CASES)
def test_the_figure_is_that_of_keras(name: str, weighted: bool) -> None:
    if weighted and name == "pixels, one logit":
        pytest.skip("its targets have no channel, which is refused")
    spec, build, targets = CASES[name]
    rng = np.random.default_rng(len(name))
    model, y = build(), targets(rng)
    shape = (COUNT, *model.output_shape[1:-1])
    weights = rng.uniform(0.1, 2, shape).astype(np.float32) if weighted else None
    toys = dataset(inputs_of(model, rng), y, weights)
    task = find_task(model, spec, toys)
    found = agree(model, task, toys, batch_size=5)
    whole = evaluate(load(model), toys.test, task)
    assert whole.value == pytest.approx(found.value, rel=1e-4, abs=1e-5)
    if found.per_class:
        assert len(found.per_class) == len(found.class_examples)


METRICS = ["mae", "mse", "rmse", "mape", "msle", "r2_score", "cosine_similarity", "log_cosh"]
LOSSES = ["mse", "mae", "huber", "log_cosh", {"class_name": "Huber", "config": {"delta": 0.3}}]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True),
    st.sampled_from(LOSSES),
    st.integers(1, COUNT + 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_loss_with_any_metrics(
    metrics: list[str], loss: str, batch_size: int, weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = head(2)
    weights = rng.uniform(0.1, 2, COUNT).astype(np.float32) if weighted else None
    y = rng.uniform(0.5, 2, (COUNT, 2)).astype(np.float32)
    toys = dataset(inputs_of(model, rng), y, weights)
    spec = TaskSpec(kind="regression", loss=loss, metrics=metrics)
    agree(model, find_task(model, spec, toys), toys, batch_size)


@pytest.mark.parametrize("nested", ["list", "dict"])
@pytest.mark.parametrize("weights", ["none", "one", "each"])
def test_several_outputs_have_one_figure(nested: str, weights: str) -> None:
    rng = np.random.default_rng(1)
    model = two_outputs()
    if nested == "dict":
        model = keras.Model(
            model.inputs, dict(zip(("sign", "angle"), model.outputs, strict=True)), name="net"
        )
    sign = rng.integers(0, 3, COUNT)
    angle = rng.normal(size=(COUNT, 1)).astype(np.float32)
    targets = {"sign": sign, "angle": angle} if nested == "dict" else (sign, angle)
    of_sign, of_angle = rng.uniform(0.1, 2, (2, COUNT)).astype(np.float32)
    each = {"sign": of_sign, "angle": of_angle} if nested == "dict" else (of_sign, of_angle)
    toys = dataset(
        inputs_of(model, rng), targets, {"none": None, "one": of_sign, "each": each}[weights]
    )
    spec = TaskSpec(
        kind={"sign": "classification", "angle": "regression"},
        loss_weights={"sign": 1.0, "angle": 0.25},
        figure="angle/mae",
        unit="°",
    )
    task = find_task(model, spec, toys)
    assert task.figure.name == "angle_mae"
    assert task.figure.better == "lower"
    assert task.figure.text(1.5) == "1.5 °"
    found = agree(model, task, toys, batch_size=4)
    assert set(found.metrics) == {"sign_accuracy", "angle_mae"}
    history = model.fit(
        data.batches(toys.train, 8, seed=0),
        validation_data=data.plain_batches(toys.test, 8),
        verbose=0,
        shuffle=False,
    ).history
    assert {"angle_mae", "val_angle_mae"} <= set(history)


def test_outputs_of_a_dict_are_called_by_its_keys() -> None:
    rng = np.random.default_rng(1)
    plain = two_outputs(("a", "b"))
    model = keras.Model(plain.inputs, dict(zip(("what", "how"), plain.outputs, strict=True)))
    what, how = rng.integers(0, 3, COUNT), rng.normal(size=COUNT).astype(np.float32)
    spec = TaskSpec(kind={"what": "classification", "how": "regression"}, figure="what/accuracy")
    x = inputs_of(model, rng)
    for targets in ({"what": what, "how": how}, {"a": what, "b": how}):
        task = find_task(model, spec, dataset(x, targets))
        if "what" in targets:
            agree(model, task, dataset(x, targets), 4)
        assert evaluate(KerasRuntime(model), (x, targets), task).figure == "what_accuracy"
    with pytest.raises(UsageError, match="give a dict with these names"):
        find_task(model, spec, dataset(x, (what, how)))


def test_a_classification_is_compiled_as_ever() -> None:
    for activation in (None, "softmax"):
        task = find_task(head(3, activation))
        assert task.figure == figures.ACCURACY
        arguments = task.compile_arguments()
        usual = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
        assert set(arguments) == {"loss", "metrics"}
        assert arguments["loss"].get_config() == usual.get_config()
        (metric,) = arguments["metrics"]
        assert type(metric) is keras.metrics.SparseCategoricalAccuracy
        assert (
            metric.get_config() == keras.metrics.SparseCategoricalAccuracy("accuracy").get_config()
        )


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_was_compiled_for_a_task_has_that_task(name: str) -> None:
    """So a file that keeps its losses and metrics needs no specification again."""
    spec, build, targets = CASES[name]
    rng = np.random.default_rng(0)
    model = build()
    if model.name == "net" and spec.kind == "segmentation" and "label" in name:
        spec = spec.model_copy(update={"ignore_class": 2})
    toys = dataset(inputs_of(model, rng), targets(rng))
    task = find_task(model, spec, toys)
    model.compile("sgd", **task.compile_arguments())
    again = find_task(model, TaskSpec(figure=spec.figure, unit=spec.unit), toys)
    assert again.figure == task.figure
    first, second = (evaluate(load(model), toys.test, each) for each in (task, again))
    assert second == dataclasses.replace(first, seconds=second.seconds)
    for arguments in (task.compile_arguments(), again.compile_arguments()):
        assert str(keras.saving.serialize_keras_object(arguments)) == str(
            keras.saving.serialize_keras_object(task.compile_arguments())
        )


def test_an_ignored_class_counts_nowhere() -> None:
    rng = np.random.default_rng(3)
    spec, build, _ = CASES["pixels, logits, a channel of labels"]
    model = build()
    y = rng.integers(0, 3, (COUNT, 3, 5)).astype(np.uint8)
    void = y.copy()
    void[:, 0] = 255
    spec = spec.model_copy(update={"ignore_class": 255})
    x = inputs_of(model, rng)
    toys = dataset(x, void)
    task = find_task(model, spec, toys)
    found = agree(model, task, toys, batch_size=COUNT)
    cropped = keras.Sequential([keras.Input((2, 5, 2)), *model.layers])
    seen = evaluate(load(cropped), (x[:, 1:], y[:, 1:]), TaskSpec(kind="segmentation"))
    assert found.value == pytest.approx(seen.value)
    assert found.per_class == pytest.approx(seen.per_class)
    assert found.loss == pytest.approx(seen.loss, rel=1e-5)
    assert sum(found.class_examples) == COUNT * 10


def test_balanced_classes_weigh_the_same() -> None:
    """The sum of weights of each class is equal, and validation is as it was."""
    rng = np.random.default_rng(0)
    model = head(3)
    y = np.repeat([0, 1, 2], [2, 6, 12])
    toys = dataset(inputs_of(model, rng, 20), y, classes=("a", "b", "c"))
    spec = TaskSpec(kind="classification", class_weights="balanced")
    task = find_task(model, spec, toys)
    plain = data.plain_batches(toys.train, 7)
    weighed = list(task.weigh_classes(plain, toys.train).as_numpy_iterator())
    weights = np.concatenate([w for _, _, w in weighed])
    sums = np.bincount(y, weights)
    assert sums == pytest.approx(np.full(3, 20 / 3), rel=1e-5)
    assert "weighted_metrics" not in task.compile_arguments()
    model.compile("sgd", **task.compile_arguments())
    history = model.fit(
        task.weigh_classes(plain, toys.train), validation_data=plain, verbose=0, shuffle=False
    ).history
    assert set(history) == {"accuracy", "val_accuracy", "loss", "val_loss"}
    found = evaluate(load(model), toys.test, task)
    assert history["val_accuracy"][-1] == pytest.approx(found.value)
    assert history["val_loss"][-1] == pytest.approx(found.loss, rel=1e-5)


@pytest.mark.parametrize("name", ["one-hot", "one sigmoid", "pixels, softmax", "pixels, one-hot"])
def test_class_weights_by_name_multiply_sample_weights(name: str) -> None:
    spec, build, targets = CASES[name]
    rng = np.random.default_rng(0)
    model, y = build(), targets(rng)
    given = rng.uniform(0.5, 2, (COUNT, *model.output_shape[1:-1])).astype(np.float32)
    toys = dataset(inputs_of(model, rng), y, given, classes=("a", "b", "c"))
    spec = spec.model_copy(update={"class_weights": {"b": 3.0}})
    task = find_task(model, spec, toys)
    numbers = y.argmax(-1) if y.shape[-1] == 3 and "hot" in name else y
    batches = task.weigh_classes(data.plain_batches(toys.train, COUNT), toys.train)
    ((_, _, weights),) = batches.as_numpy_iterator()
    assert weights == pytest.approx(given * np.where(numbers == 1, 3.0, 1.0), rel=1e-6)
    # Keras takes them.
    model.compile("sgd", **task.compile_arguments())
    assert np.isfinite(model.fit(batches, verbose=0, shuffle=False).history["loss"][0])


def test_class_weights_of_one_of_two_outputs() -> None:
    rng = np.random.default_rng(0)
    model = two_outputs()
    sign = rng.integers(0, 3, COUNT)
    toys = dataset(inputs_of(model, rng), (sign, rng.normal(size=COUNT).astype(np.float32)))
    spec = TaskSpec(
        kind={"sign": "classification", "angle": "regression"},
        figure="sign/accuracy",
        class_weights={"1": 2.0},
    )
    task = find_task(model, spec, toys)
    batches = task.weigh_classes(data.plain_batches(toys.train, COUNT), toys.train)
    ((_, _, (of_sign, of_angle)),) = batches.as_numpy_iterator()
    assert of_sign.tolist() == np.where(sign == 1, 2.0, 1.0).tolist()
    assert of_angle.tolist() == [1.0] * COUNT
    model.compile("sgd", **task.compile_arguments())
    assert np.isfinite(model.fit(batches, verbose=0, shuffle=False).history["loss"][0])
