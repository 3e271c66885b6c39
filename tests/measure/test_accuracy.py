from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfprune.errors import UsageError
from tfprune.formats import load
from tfprune.measure import agreement, cross_entropy, evaluate

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
    measured = evaluate(load(files["tflite"]), images, labels[:, None], batch_size=16)
    assert measured.accuracy == pytest.approx(accuracy)
    assert measured.images == len(images)
    assert measured.seconds > 0
    logits = load(model).predict(images)
    assert measured.loss == pytest.approx(cross_entropy(logits, labels), rel=1e-4)


@pytest.mark.parametrize("labels", [[0, 1], [[0, 1]] * 3, [0.0, 1.0, 2.0], [0, 1, 4], [0, 1, -1]])
def test_labels_that_do_not_fit_are_one_line(
    model: keras.Model, images: np.ndarray, labels: list[object]
) -> None:
    with pytest.raises(UsageError) as error:
        evaluate(load(model), images[:3], np.array(labels))
    assert "\n" not in str(error.value)


def test_a_single_output_has_no_accuracy() -> None:
    inputs = keras.Input((2,))
    runtime = load(keras.Model(inputs, keras.layers.Dense(1)(inputs)))
    with pytest.raises(UsageError, match="one output a class"):
        evaluate(runtime, np.zeros((3, 2)), np.zeros(3, int))


def test_agreement_counts_classes_and_finds_the_differences() -> None:
    expected = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    outputs = np.array([[0.0, 1.0], [0.4, 0.5], [0.0, 1.0], [1.0, 0.0]])
    found = agreement(outputs, expected)
    assert (found.share, found.compared_as, found.commonest) == (0.75, "classes", 0.5)
    assert found.largest_difference == pytest.approx(0.6)
    assert found.mean_difference == pytest.approx(1.1 / 8)
    assert found.off == pytest.approx(0.6)
    with pytest.raises(UsageError, match="cannot be compared"):
        agreement(outputs, expected[:2])


SHAPES = [(60, 1), (60, 4), (60,), (8, 4, 4, 1), (8, 4, 4, 3), (20, 5, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["numbers", "sigmoid", "softmax"])
def test_agreement_can_disagree_whatever_the_outputs_are(shape: tuple[int, ...], kind: str) -> None:
    """The same is 1; noise, a constant and the opposite are far from it."""
    rng = np.random.default_rng(0)
    expected = rng.normal(size=shape) * 3
    if kind == "sigmoid":
        expected = 1 / (1 + np.exp(-expected))
    elif kind == "softmax" and shape[-1] > 1:
        expected = softmax(expected.reshape(-1, shape[-1])).reshape(shape)
    sigmoid = kind == "sigmoid"
    assert agreement(expected, expected, sigmoid=sigmoid).share == 1
    noise = expected + rng.normal(size=shape) * 1e-4
    assert agreement(noise, expected, sigmoid=sigmoid).share > 0.98
    for wrong in (
        rng.permutation(expected.ravel()).reshape(shape),
        np.full(shape, expected.mean()),
        expected.max() - expected,
        expected * np.nan,
    ):
        assert agreement(wrong, expected, sigmoid=sigmoid).share < 0.75


@pytest.mark.parametrize("sigmoid", [True, False])
def test_rare_classes_are_compared_by_value(sigmoid: bool) -> None:
    """A file that never finds one of a hundred agrees in 99: that says nothing."""
    found = np.full((1000, 1), 0.01)
    expected = np.where(np.arange(1000)[:, None] % 100 == 0, 0.99, 0.01)
    if not sigmoid:
        expected, found = (np.concatenate([y, 1 - y], axis=1) for y in (expected, found))
    assert agreement(found, expected, sigmoid=sigmoid).share < 0.1
    assert agreement(expected, expected, sigmoid=sigmoid).compared_as == "values"


def test_columns_with_units_of_their_own_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(100, 2)) * [1000, 1]
    found = np.round(expected / 8) * 8
    assert agreement(found[:, :1], expected[:, :1]).share > 0.99
    both = agreement(found, expected)
    assert (both.compared_as, both.share < 0.5) == ("values", True)
    assert both.correlation == pytest.approx(1, abs=1e-3)
