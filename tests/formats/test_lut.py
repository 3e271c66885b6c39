"""Weights of few values in tables: smaller as they are, and the same bits in TFLite Micro."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.artifacts import Artifact, export, verify, write_manifest
from tfprune.errors import TfpruneError
from tfprune.formats import load
from tfprune.formats.lut import compressed
from tfprune.measure import parameters
from tfprune.weights import round_weights

micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (120, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> keras.Model:
    """A convolution and a dense layer that gain from tables, and two that are too small."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="small")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(32, 3, activation="relu", name="wide")(x)
    x = layers.Dense(256, name="dense")(layers.Flatten()(x))
    return round_weights(keras.Model(inputs, layers.Dense(4, name="logits")(x)), 4)


@pytest.fixture(scope="module")
def files(
    net: keras.Model, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("lut")
    made = export(net, folder, ["tflite-int8", "tflite-lut", "c-array-lut"], images)
    write_manifest(folder, made)
    return {each.format: each for each in made}


def test_it_is_smaller_without_any_archive(files: dict[str, Artifact]) -> None:
    assert files["tflite-lut"].bytes_raw < 0.8 * files["tflite-int8"].bytes_raw


def test_tflite_micro_gives_the_same_bits(files: dict[str, Artifact]) -> None:
    plain, coded = (
        micro.Interpreter.from_bytes(files[name].path.read_bytes(), arena_size=1 << 22)
        for name in ("tflite-int8", "tflite-lut")
    )
    rng = np.random.default_rng(1)
    for _ in range(20):
        x = rng.integers(-128, 127, (1, *SHAPE)).astype(np.int8)
        for each in (plain, coded):
            each.set_input(x, 0)
            each.invoke()
        np.testing.assert_array_equal(plain.get_output(0), coded.get_output(0))


def test_it_runs_like_any_other_file(files: dict[str, Artifact], images: np.ndarray) -> None:
    plain, coded, array = (
        load(files[name].path) for name in ("tflite-int8", "tflite-lut", "c-array-lut")
    )
    assert (coded.format, array.format) == ("tflite-lut", "c-array-lut")
    assert coded.macs() == plain.macs()
    found = coded.predict(images[:30])
    np.testing.assert_array_equal(found, array.predict(images[:30]))
    # LiteRT rounds differently in the last place.
    np.testing.assert_allclose(found, plain.predict(images[:30]), atol=2.5 * plain.output_step)


def test_its_weights_are_those_of_the_int8_file(files: dict[str, Artifact]) -> None:
    plain, coded = (parameters(files[name].path) for name in ("tflite-int8", "tflite-lut"))
    assert (plain.total, plain.nonzero) == (coded.total, coded.nonzero)
    bits = {each.name: each.bits for each in load(files["tflite-lut"].path).weights()}
    assert sorted(set(bits.values())) == [4, 8, 32]


def test_the_card_has_the_arena_with_the_decoded_weights(files: dict[str, Artifact]) -> None:
    artifact = files["c-array-lut"]
    assert artifact.memory is not None
    assert "resolver.AddDecode();" in artifact.memory.resolver
    assert artifact.companions[0].name.endswith("_lut.h")
    verdicts = verify(artifact.path.parent)
    assert all(each.passed for each in verdicts)


def test_weights_of_many_values_are_refused_with_advice(images: np.ndarray, tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(32)])
    with pytest.raises(TfpruneError, match="--weight-bits 4"):
        export(net, tmp_path, ["tflite-lut"], images)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_weights_that_stay_without_a_table_are_named(tmp_path: Path) -> None:
    inputs = keras.Input((400,))
    few = layers.Dense(64, name="few")(inputs)
    both = layers.Concatenate()([few, layers.Dense(8, name="many")(inputs)])
    net = round_weights(keras.Model(inputs, both), 4, include=["few"])
    x = np.random.default_rng(0).normal(size=(40, 400)).astype(np.float32)
    (plain,) = export(net, tmp_path, ["tflite-int8"], x)
    with pytest.warns(UserWarning, match=r"more than 128 values: .*many.* \(\d+ values\)") as said:
        compressed(plain.path.read_bytes())
    assert "few" not in str(said[0].message)


@pytest.mark.slow
def test_larger_batches_give_the_same(
    net: keras.Model, files: dict[str, Artifact], images: np.ndarray, tmp_path: Path
) -> None:
    (four,) = export(net, tmp_path, ["tflite-lut"], images, batch=4)
    assert four.batch == 4
    wanted = load(files["tflite-lut"].path).predict(images[:10])
    # Calibration rounds the scales otherwise; the integers are the same.
    np.testing.assert_allclose(load(four.path).predict(images[:10]), wanted, rtol=1e-5, atol=1e-7)
