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
from tfprune.measure import cross_entropy, evaluate

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
