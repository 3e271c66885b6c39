from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tfprune
from tests.tasks.small import COUNT, dataset, inputs_of, two_outputs
from tfprune import data
from tfprune.errors import UsageError
from tfprune.formats import load
from tfprune.formats.runtime import Feeds, Runtime, StoredWeights, Tensor
from tfprune.measure import cross_entropy, evaluate, evaluation
from tfprune.tasks import TaskSpec, find_task
from tfprune.tasks.spec import Kind

finite = st.floats(-6, 6, width=32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


# The machine that runs the tests may be busy.
@settings(deadline=None)
@given(arrays(np.float32, (5, 4), elements=finite), arrays(np.int64, 5, elements=st.integers(0, 3)))
def test_logits_and_their_probabilities_have_one_loss(
    logits: np.ndarray, labels: np.ndarray
) -> None:
    # Logits that happen to be probabilities are probabilities: nothing could tell them apart.
    logits[0] = [-1, 0, 1, 2]
    of_logits = cross_entropy(logits, labels)
    assert of_logits == pytest.approx(cross_entropy(softmax(logits), labels), abs=1e-5)
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert of_logits == pytest.approx(float(keras_loss), abs=1e-4)


@settings(deadline=None)
@given(arrays(np.float32, (6, 20), elements=finite))
def test_quantized_probabilities_are_still_probabilities(logits: np.ndarray) -> None:
    step = 1 / 256
    probabilities = softmax(logits)
    labels = probabilities.argmax(axis=1)
    quantized = np.round(probabilities / step) * step
    expected = -np.log(np.clip(quantized.max(axis=1), 1e-7, 1)).mean()
    assert cross_entropy(quantized, labels, step) == pytest.approx(expected)


def test_non_negative_logits_are_logits() -> None:
    logits = np.array([[0.0, 3.0, 0.0]])
    assert cross_entropy(logits, np.array([1])) == pytest.approx(math.log1p(2 * math.exp(-3)))


@pytest.mark.parametrize("outputs", [[[1.0, 0.0]], [[1000.0, -1000.0]]])
def test_a_sure_mistake_costs_no_more_than_the_floor(outputs: list[list[float]]) -> None:
    assert cross_entropy(np.array(outputs), np.array([1])) == pytest.approx(-math.log(1e-7))


def test_evaluating_a_file_equals_keras(
    files: dict[str, Path], model: keras.Model, images: np.ndarray
) -> None:
    labels = np.random.default_rng(0).integers(0, 4, len(images))
    reference = keras.models.clone_model(model)
    reference.set_weights(model.get_weights())
    reference.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    _, accuracy = reference.evaluate(images.astype(np.float32), labels, verbose=0)
    measured = evaluate(load(files["tflite"]), (images, labels[:, None]), batch_size=16)
    assert measured.value == pytest.approx(accuracy)
    assert measured.examples == len(images)
    assert measured.seconds > 0
    logits = load(model).predict(images)
    assert measured.loss == pytest.approx(cross_entropy(logits, labels), rel=1e-4)


@pytest.mark.parametrize("labels", [[0, 1], [[0, 1]] * 3, [0.0, 1.0, 2.0], [0, 1, 4], [0, 1, -1]])
def test_labels_that_do_not_fit_are_one_line(
    model: keras.Model, images: np.ndarray, labels: list[object]
) -> None:
    with pytest.raises(UsageError) as error:
        evaluate(load(model), (images[:3], np.array(labels)))
    assert "\n" not in str(error.value)


def test_a_single_number_may_be_anything() -> None:
    inputs = keras.Input((2,))
    runtime = load(keras.Model(inputs, keras.layers.Dense(1)(inputs)))
    with pytest.raises(UsageError, match='kind = "regression" or kind = "binary"'):
        evaluate(runtime, (np.zeros((3, 2)), np.zeros(3, int)))


class Given(Runtime):
    """A file that answers what it is told, and takes the numbers of examples."""

    name = "given.tflite"
    format = "tflite"

    def __init__(self, *outputs: np.ndarray, scale: float | None = None) -> None:
        self.inputs = (Tensor("number", (None, 1), "float32"),)
        self.outputs = tuple(
            Tensor(f"output_{place}", (None, *answers.shape[1:]), "float32", scale)
            for place, answers in enumerate(outputs)
        )
        self.answers = outputs
        self.batches: list[int] = []

    def weights(self) -> Iterator[StoredWeights]:
        yield from ()

    def _run(self, feeds: Feeds) -> Feeds:
        rows = feeds["number"][:, 0].astype(int)
        self.batches.append(len(rows))
        return {
            each.name: answers[rows]
            for each, answers in zip(self.outputs, self.answers, strict=True)
        }


def numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None]


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_examples_that_come_in_parts_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, probabilities: bool, batch_size: int
) -> None:
    rng = np.random.default_rng(batch_size)
    answers = rng.normal(size=(50, 4)).astype(np.float32)
    # The first rows alone look like probabilities.
    answers[:20] = softmax(answers[:20])
    if probabilities:
        answers = softmax(answers).astype(np.float32)
    labels = rng.integers(0, 4, 50)
    whole = evaluate(Given(answers), (numbers(50), labels), batch_size=batch_size)
    assert whole.value == np.mean(answers.argmax(axis=1) == labels)
    assert whole.loss == cross_entropy(answers, labels)
    monkeypatch.setattr(evaluation, "_MOST_BYTES", 1)
    seen: list[int] = []
    runtime = Given(answers)
    parts = evaluate(runtime, (numbers(50), labels), batch_size=batch_size, progress=seen.append)
    assert (parts.value, parts.loss, parts.per_class, parts.class_examples) == (
        whole.value,
        whole.loss,
        whole.per_class,
        whole.class_examples,
    )
    assert sum(seen) == sum(runtime.batches) == parts.examples == 50
    assert max(runtime.batches) <= batch_size


@pytest.mark.parametrize("weighted", [False, True])
def test_a_stream_is_measured_as_arrays_are(weighted: bool) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    answers, labels = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    weights = rng.uniform(0.1, 2, 50).astype(np.float32)
    given = (numbers(50), labels, *([weights] if weighted else []))
    arrays = data.Arrays(*given)
    stream = data.Stream(
        lambda seed, epoch: tf.data.Dataset.from_tensor_slices(given), 50, arrays.element_spec
    )
    found = [
        evaluate(Given(answers), each, batch_size=7)
        for each in (given, data.Examples(*given), arrays, stream)
    ]
    assert all(
        (each.value, each.loss, each.per_class)
        == (found[0].value, found[0].loss, found[0].per_class)
        for each in found
    )
    if weighted:
        right = answers.argmax(axis=1) == labels
        assert found[0].value == pytest.approx((right * weights).sum() / weights.sum())


def test_a_file_tells_by_its_answers_whether_pixels_are_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(9, 2, 3, 4)).astype(np.float32)
    powers = np.exp(logits)
    rows = powers / powers.sum(axis=-1, keepdims=True)
    # As int8 rounds them.
    rounded = np.round(rows * 256) / 256
    labels = rng.integers(0, 4, (9, 2, 3))
    found = [
        evaluate(Given(each), (numbers(9), labels), TaskSpec(kind="segmentation"))
        for each in (logits, rows, rounded)
    ]
    assert found[0].value == pytest.approx(found[1].value)
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-5)
    assert found[2].loss == pytest.approx(found[1].loss, rel=0.02)
    share = keras.metrics.MeanIoU(4, sparse_y_pred=False)
    share.update_state(labels, logits)
    assert found[0].value == pytest.approx(float(share.result()))


def test_a_file_of_one_number_is_asked_for_logits() -> None:
    answers = np.array([[-0.5], [0.2], [0.4], [0.9]], np.float32)
    given, sides = (numbers(4), np.array([0, 0, 1, 1])), TaskSpec(kind="binary")
    with pytest.raises(UsageError, match="from_logits = true or false"):
        evaluate(Given(answers), given, sides)
    logits = sides.model_copy(update={"from_logits": True})
    assert evaluate(Given(answers), given, logits).value == 0.75
    probabilities = sides.model_copy(update={"from_logits": False})
    assert evaluate(Given(answers), given, probabilities).value == 0.75
    assert evaluate(Given(answers), given, logits).per_class == (0.5, 1.0)


def test_a_file_needs_no_direction_to_give_an_error() -> None:
    answers = np.array([[1.0], [2.0], [4.0]], np.float32)
    spec = TaskSpec(kind="regression", figure="rmse", unit="mm")
    found = evaluate(Given(answers), (numbers(3), np.zeros(3)), spec)
    assert (found.figure, found.value) == ("rmse", pytest.approx(math.sqrt(7)))
    assert (found.loss, found.metrics["mae"]) == (pytest.approx(7), pytest.approx(7 / 3))
    assert (found.per_class, found.class_examples) == ((), ())


@pytest.mark.parametrize(
    ("spec", "answers", "targets", "said"),
    [
        ({"kind": "regression"}, (4, 1), np.array([0.0, 1, 2, np.nan]), "NaN"),
        ({"kind": "regression"}, (4, 2), np.zeros(4), "one number an output"),
        ({"kind": "segmentation"}, (4, 2, 2, 3), np.full((4, 2, 2), 3), "labels from 3 to 3"),
        ({"kind": "classification"}, (4, 3), np.array([0, 1, 2, 3]), "0 to 2"),
        ({"kind": "classification"}, (4, 3), np.array(["a"] * 4), "numbers"),
        (None, (4, 3), np.zeros(3, int), "equally many"),
        (None, (4, 3), np.zeros((0,), int), "equally many"),
    ],
)
def test_what_does_not_fit_a_file_is_one_line(
    spec: dict[str, Any] | None, answers: tuple[int, ...], targets: np.ndarray, said: str
) -> None:
    runtime = Given(np.zeros(answers, np.float32))
    with pytest.raises(UsageError) as caught:
        task = None if spec is None else TaskSpec.model_validate(spec)
        evaluate(runtime, (numbers(4), targets), task)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_example_is_one_line() -> None:
    with pytest.raises(UsageError, match="at least one"):
        evaluate(Given(np.zeros((1, 2), np.float32)), (numbers(0), np.zeros(0, int)))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """Two inputs and two outputs, whose names are not in the order of the alphabet."""
    keras.utils.set_random_seed(0)
    model = two_outputs()
    folder = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(0)
    left, right = inputs_of(model, rng, 40)
    tfprune.export(
        model, folder, ["savedmodel", "tflite", "tflite-int8"], {"left": left, "right": right}
    )
    return model, folder


@pytest.mark.parametrize("nested", ["tuple", "dict"])
@pytest.mark.parametrize("file", ["model.tflite", "model.int8.tflite", "model.savedmodel.tar.gz"])
def test_files_with_several_ends_are_measured_by_name(
    several: tuple[keras.Model, Path], file: str, nested: str
) -> None:
    model, folder = several
    rng = np.random.default_rng(1)
    # Within the range that calibrated the int8 file.
    left, right = (x / 3 for x in inputs_of(model, rng))
    sign, angle = rng.integers(0, 3, COUNT), rng.normal(size=COUNT).astype(np.float32)
    given: tuple[Any, ...] = ((left, right), (sign, angle))
    if nested == "dict":
        given = ({"right": right, "left": left}, {"angle": angle, "sign": sign})
    spec = TaskSpec(
        kind={"sign": "classification", "angle": "regression"},
        loss_weights={"sign": 1, "angle": 0.5},
        figure="angle/mae",
    )
    task = find_task(model, spec, dataset(*given))
    expected = evaluate(load(model), given, task)
    (path,) = [path for path in folder.iterdir() if path.name == file]
    found = evaluate(load(path), given, task, batch_size=5)
    loose = 0.1 if "int8" in file else 1e-4
    assert found.figure == "angle_mae"
    assert found.value == pytest.approx(expected.value, abs=loose)
    assert found.loss == pytest.approx(expected.loss, abs=loose)
    if nested == "dict":
        # The names tell a file alone what is what.
        alone = evaluate(load(path), given, spec, batch_size=5)
        assert alone.value == found.value
        assert alone.loss == pytest.approx(found.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("end", "targets", "kind"),
    [
        (keras.layers.Dense(3), np.arange(8) % 3, "classification"),
        (keras.layers.Dense(1, "sigmoid"), np.arange(8) % 2, "binary"),
        (keras.layers.Dense(2, "sigmoid"), np.eye(2)[np.arange(8) % 2], "multi-label"),
        (keras.layers.Dense(1), np.arange(8.0), "regression"),
    ],
)
def test_nan_is_no_answer(end: keras.Layer, targets: np.ndarray, kind: Kind) -> None:
    """It would be class 0, and on the lower side of any threshold."""
    x = keras.Input((4,))
    model = keras.Model(x, end(keras.ops.sqrt(x)))
    inputs = np.ones((8, 4), np.float32)
    inputs[0] = -1
    with pytest.warns(UserWarning, match="gives NaN for 1 of 8 examples"):
        found = evaluate(load(model), (inputs, targets), TaskSpec(kind=kind))
    assert np.isnan(found.value)
    assert found.per_class == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(
            evaluate(load(model), (inputs[1:], targets[1:]), TaskSpec(kind=kind)).value
        )


def test_sigmoids_of_classes_have_the_loss_of_probabilities() -> None:
    """They sum to anything, and are no logits for that."""
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(3, "sigmoid")(x))
    inputs = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    labels = np.arange(32) % 3
    loss = keras.losses.SparseCategoricalCrossentropy()(labels, np.asarray(model(inputs)))
    found = evaluate(load(model), (inputs, labels), TaskSpec(kind="classification"))
    assert found.loss == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_no_numbers_are_refused(value: float) -> None:
    """A ReLU makes 0 of NaN, and the answer looks like any other."""
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.ReLU()(x)))
    inputs = np.ones((8, 4), np.float32)
    inputs[2] = value
    with pytest.raises(UsageError, match="NaN or infinite values in the inputs of 1 examples"):
        evaluate(load(model), (inputs, np.arange(8) % 3))
