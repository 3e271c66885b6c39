from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from tfprune.artifacts import export
from tfprune.artifacts.calibration import doubts
from tfprune.artifacts.examples import by_input, held_back
from tfprune.errors import TfpruneError
from tfprune.formats.source import finished

DIGITS = load_digits()
PIXELS = (DIGITS.images / 16).astype("float32")[..., None]
LABELS = DIGITS.target

BODIES: dict[str, Callable[[], list[keras.Layer]]] = {
    "plain": lambda: [
        layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(16, 3, activation="relu"),
        layers.Flatten(),
    ],
    "norm": lambda: [layers.Normalization(), layers.Conv2D(8, 3), layers.ReLU(), layers.Flatten()],
    "batch norm": lambda: [
        layers.Conv2D(16, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.Flatten(),
    ],
}


def trained(body: str, head: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    first, *others = BODIES[body]()
    if isinstance(first, layers.Normalization):
        first.adapt(PIXELS)
    last = layers.Dense(1) if head == "number" else layers.Dense(10, activation=head)
    model = keras.Sequential([keras.Input((8, 8, 1)), first, *others, last])
    loss = {
        "number": "mse",
        "softmax": "sparse_categorical_crossentropy",
        "linear": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }[head]
    model.compile("adam", loss)
    model.fit(PIXELS[:1400], LABELS[:1400], epochs=8, batch_size=64, verbose=0)
    return finished(model)


@pytest.fixture(scope="module")
def nets() -> dict[tuple[str, str], keras.Model]:
    heads = [("plain", head) for head in ("linear", "softmax", "number")]
    return {each: trained(*each) for each in [*heads, ("norm", "number"), ("batch norm", "number")]}


@pytest.mark.slow
@pytest.mark.reliability("data that calibrate a file", "right")
def test_data_of_the_training_raise_no_doubt(nets: dict[tuple[str, str], keras.Model]) -> None:
    for net in nets.values():
        assert doubts(net, by_input(net, PIXELS[:300])) == []


@pytest.mark.reliability("data that calibrate a file", "warned")
@pytest.mark.parametrize("scale", [1 / 255, 1 / 16, 255.0])
def test_data_on_another_scale_are_told(
    nets: dict[tuple[str, str], keras.Model], scale: float
) -> None:
    for (body, head), net in nets.items():
        found = doubts(net, by_input(net, PIXELS[:300] * scale))
        # A number on another scale is a number: only a layer with statistics knows.
        if (body, head) != ("plain", "number"):
            assert any("as in training" in each for each in found), (body, head)
            assert all("\n" not in each for each in found)


@pytest.mark.reliability("data that calibrate a file", "warned")
def test_other_examples_tell_where_a_model_does_not(
    nets: dict[tuple[str, str], keras.Model],
) -> None:
    net = nets["plain", "number"]
    given = by_input(net, PIXELS[1400:])
    assert doubts(net, by_input(net, PIXELS[:300]), given) == []
    for scale in (1 / 255, 1 / 16, 16, 255):
        (found,) = doubts(net, by_input(net, PIXELS[:300] * scale), given)
        assert "and comparison_data 0 to 1" in found


@pytest.mark.reliability("data that calibrate a file", "warned")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (PIXELS[:1], "has 1 example, which are too few"),
        (PIXELS[:19], "has 19 examples, which are too few"),
        (np.zeros((50, 8, 8, 1)), "are all 0: activations get no range"),
        (np.repeat(PIXELS[:1], 50, axis=0), "are the same example"),
    ],
)
def test_few_or_constant_data_are_told(
    nets: dict[tuple[str, str], keras.Model], data: np.ndarray, says: str
) -> None:
    net = nets["plain", "linear"]
    (found,) = doubts(net, by_input(net, data))
    assert says in found


@pytest.mark.reliability("data that calibrate a file", "warned")
def test_examples_of_one_class_are_told(nets: dict[tuple[str, str], keras.Model]) -> None:
    net = nets["plain", "linear"]
    threes = PIXELS[np.asarray(net(PIXELS)).argmax(axis=1) == 3]
    (found,) = doubts(net, by_input(net, threes))
    assert "gives one class for 100% of representative_data" in found
    # Where the model knows no other, it is not for want of examples.
    assert doubts(net, by_input(net, threes), by_input(net, threes[::2])) == []


@pytest.mark.reliability("data that calibrate a file", "warned")
def test_pixels_that_were_scaled_once_too_often_are_told() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Rescaling(1 / 255, name="pixels"), layers.Flatten()]
    )
    for scale, doubted in ((1.0, True), (16.0, True), (255.0, False), (255.0**2, True)):
        found = doubts(model, by_input(model, PIXELS[:50] * scale))
        assert any("layer 'pixels' rescales pixels 0..255" in each for each in found) == doubted


def test_examples_are_held_back_once_and_for_all() -> None:
    feeds = {"a": np.arange(100), "b": np.arange(100) * 2}
    calibration, comparison = held_back(feeds)
    assert comparison is not None
    assert sorted([*calibration["a"], *comparison["a"]]) == list(range(100))
    assert len(comparison["a"]) == 25
    # Classes in turn, ten of them, all come into the comparison.
    assert len({int(x) % 10 for x in comparison["a"]}) == 10
    for part in (calibration, comparison):
        np.testing.assert_array_equal(part["b"], part["a"] * 2)
    np.testing.assert_array_equal(held_back(feeds)[0]["a"], calibration["a"])
    assert held_back({"a": np.arange(19)})[1] is None


def cancelling(head: str | None) -> keras.Model:
    """Large numbers that cancel: int8 keeps nothing of their difference."""
    rng = np.random.default_rng(0)
    x = keras.Input((8, 8, 1))
    flat = layers.Flatten()(x)
    a, b = layers.Dense(16, name="a")(flat), layers.Dense(16, name="b")(flat)
    y = layers.Dense(1, activation=head, name="out")(layers.Subtract()([a, b]))
    model = keras.Model(x, y)
    kernel = rng.normal(size=(64, 16)) * 10
    model.get_layer("a").kernel.assign(kernel)
    model.get_layer("b").kernel.assign(kernel + rng.normal(size=kernel.shape) * 0.02)
    model.get_layer("out").kernel.assign(rng.normal(size=(16, 1)) * 6)
    return model


@pytest.mark.slow
@pytest.mark.reliability("data that calibrate a file", "right")
def test_one_output_can_disagree(tmp_path: Path) -> None:
    data = np.random.default_rng(1).normal(size=(256, 8, 8, 1)).astype("float32")
    with pytest.raises(TfpruneError, match="variance explained"):
        export(cancelling(None), tmp_path, ["tflite-int8"], data)
    (artifact,) = export(cancelling("sigmoid"), tmp_path, ["tflite-int8"], data)
    assert artifact.compared_as == "sides"
    assert artifact.agreement < 0.7
    assert (artifact.compared, artifact.compared_on) == (64, "held back")
    assert artifact.off is not None
    assert artifact.off > 0.9


@pytest.mark.reliability("data that calibrate a file", "right")
def test_the_lowest_of_several_outputs_is_named(tmp_path: Path) -> None:
    bad = cancelling("sigmoid")
    good = layers.Dense(3, name="good")(layers.Flatten()(bad.inputs[0]))
    model = keras.Model(bad.inputs, {"good": good, "bad": bad.outputs[0]})
    data = np.random.default_rng(1).normal(size=(100, 8, 8, 1)).astype("float32")
    comparison = np.random.default_rng(2).normal(size=(60, 8, 8, 1)).astype("float32")
    (artifact,) = export(model, tmp_path, ["tflite-int8"], data, comparison_data=comparison)
    assert artifact.compared_output == "out"
    assert artifact.agreement < 0.8
    assert (artifact.compared, artifact.compared_on) == (60, "given")
