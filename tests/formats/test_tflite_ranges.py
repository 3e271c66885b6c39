"""Ranges that integer files have, and biases that do not fit into them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tests.tables import slow
from tfprune.errors import TfpruneError
from tfprune.formats.tflite_ranges import _number_of, cut_off, mark

KEEPS = ({"last": "float32"}, {"*": "int16"})


def net(dead: str) -> keras.Model:
    """Filters of zeros with a bias, or a layer that gives nothing but zeros."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    x = keras.layers.Conv2D(4, 3, name="second")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(4, 5, name="beside")(image)])
    x = keras.layers.Dense(3, name="last")(keras.layers.Flatten()(x))
    model = keras.Model(image, x)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = np.asarray(weight).copy()
        if weight.name == "bias":
            values = rng.uniform(0.2, 0.6, values.shape)
        elif dead == "filter":
            values[..., 1] = 0
        weight.assign(values)
    if dead == "layer":
        model.get_layer("first").bias.assign(np.full(4, -9.0))
    return model


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(256, 6, 6, 3)).astype("float32")


def test_marks_are_told_apart_and_no_activation_is_one() -> None:
    for number in (0, 1, 2, 1000, 2**23 - 1):
        assert _number_of(np.frombuffer(mark(number).tobytes(), np.uint8)) == number
    for value in (0.0, -1.0, -1e30, 1e30, -np.inf, np.nan):
        assert _number_of(np.frombuffer(np.float32(value).tobytes(), np.uint8)) is None


@pytest.mark.parametrize("dead", [slow("filter"), "layer"])
@pytest.mark.parametrize("keep", [slow(KEEPS[0]), KEEPS[1]], ids=str)
def test_a_bias_on_zeros_is_whole_in_files_of_several_precisions(
    dead: str, keep: dict[str, str], tmp_path: Path
) -> None:
    model, x = net(dead), images()
    (artifact,) = tfprune.export(model, tmp_path, ["tflite-int8"], x, keep=keep)
    assert cut_off(artifact.path.read_bytes()) == []
    (y,) = tfprune.formats.load(artifact.path).run({"image": x}).values()
    wanted = np.asarray(model(x))
    assert np.abs(y - wanted).max() < 0.05 * np.ptp(wanted)


def test_a_file_with_a_bias_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    # TensorFlow's converter has no finite step for it.
    with pytest.raises(TfpruneError, match=r"tflite-int16x8: the bias of .*second.* is too large"):
        tfprune.export(net("layer"), tmp_path, ["tflite-int16x8"], images())
    assert not list(tmp_path.glob("*.tflite"))


@pytest.mark.slow
def test_with_int16_activations_a_bias_on_zeros_is_whole(tmp_path: Path) -> None:
    model, x = net("layer"), images()
    aware = tfprune.quantize_aware(model, x, activations="int16")
    (artifact,) = tfprune.export(aware, tmp_path, ["tflite-int16x8"], comparison_data=x)
    runtime = tfprune.formats.load(artifact.path)
    (y,) = runtime.run({"image": x}).values()
    assert np.abs(y - aware(x, training=False)).max() <= 10 * runtime.outputs[0].scale
