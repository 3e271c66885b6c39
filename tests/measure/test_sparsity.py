from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.errors import TfpruneError, UsageError
from tfprune.measure import Parameters, parameters, sparsity


def half_zeros(model: keras.Model) -> None:
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.choice([0.0, 1.0], weight.shape))


def test_the_public_name_is_the_function() -> None:
    assert tfprune.sparsity is sparsity


def test_rows_follow_the_weights_and_add_up(model: keras.Model) -> None:
    copy = keras.models.clone_model(model)
    half_zeros(copy)
    table = sparsity(copy)
    assert list(table.columns) == ["layer", "weight", "size", "zeros", "sparsity"]
    values = [np.asarray(w) for w in copy.weights]
    assert table["size"].tolist()[:-1] == [v.size for v in values]
    assert table["zeros"].tolist()[:-1] == [int((v == 0).sum()) for v in values]
    everything = np.concatenate([v.ravel() for v in values])
    total = table.iloc[-1]
    assert total["layer"] == "total"
    assert total["size"] == everything.size
    assert total["zeros"] == (everything == 0).sum()
    assert total["sparsity"] == pytest.approx((everything == 0).mean())
    assert parameters(copy) == Parameters(everything.size, np.count_nonzero(everything))


def test_nested_models_have_readable_paths_and_shared_weights_count_once() -> None:
    conv = keras.layers.Conv2D(2, 3, padding="same", name="conv")
    block = keras.Sequential([keras.Input((4, 4, 2)), conv], name="block")
    inputs = keras.Input((4, 4, 2))
    attended = keras.layers.MultiHeadAttention(1, 2, name="look")(
        *[keras.layers.Reshape((16, 2), name="flat")(block(block(inputs)))] * 2
    )
    model = keras.Model(inputs, attended)
    table = sparsity(model)
    places = list(zip(table["layer"], table["weight"], strict=True))
    assert places[:2] == [("block/conv", "kernel"), ("block/conv", "bias")]
    assert ("look/query", "kernel") in places
    assert len(set(places)) == len(places) == len(model.weights) + 1
    assert table["size"].iloc[-1] == model.count_params()


def test_a_layer_named_like_the_end_of_another_is_told_apart() -> None:
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, name="data"), keras.layers.Dense(2, name="a")]
    )
    assert sparsity(model)["layer"].tolist() == ["data", "data", "a", "a", "total"]


def test_a_model_without_weights_has_sparsity_zero() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    assert sparsity(model)["sparsity"].tolist() == [0.0]
    assert parameters(model).sparsity == 0.0


def test_an_unbuilt_model_is_one_line() -> None:
    with pytest.raises(UsageError, match="build or call it first"):
        sparsity(keras.Sequential([keras.layers.Dense(2)]))


@pytest.mark.parametrize("form", ["keras", "savedmodel"])
def test_files_with_all_weights_count_them_all(
    files: dict[str, Path], form: str, model: keras.Model
) -> None:
    assert parameters(files[form]) == parameters(model)
    assert parameters(files[form]).total == model.count_params()


@pytest.mark.parametrize("form", ["tflite", "tflite-int8"])
def test_tflite_counts_what_is_left_after_folding(files: dict[str, Path], form: str) -> None:
    # Each BatchNorm becomes one bias of its convolution; every bias here is live and distinct.
    kernels = 3 * 3 * 3 * 4 + 3 * 3 * 4 * 4 + 64 * 4
    assert parameters(files[form]).total == kernels + 4 + 4 + 4


def test_zero_points_are_zeros(tmp_path: Path) -> None:
    """A constant that is added is quantized with a zero point that is not 0."""
    inputs = keras.Input((8, 8, 3))
    constant = np.zeros((8, 8, 3), np.float32)
    constant[:4] = np.random.default_rng(0).uniform(50, 100, (4, 8, 3))
    x = keras.layers.Flatten()(keras.layers.ReLU()(inputs + constant))
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="ones")(x))
    data = np.random.default_rng(0).uniform(0, 255, (20, 8, 8, 3))
    (artifact,) = tfprune.export(model, tmp_path, ["tflite-int8"], representative_data=data)
    counted = parameters(artifact.path)
    assert counted.total - counted.nonzero >= 4 * 8 * 3


def test_sparse_storage_does_not_hide_zeros(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, use_bias=False)])
    kernel = np.random.default_rng(0).uniform(0.5, 1, (64, 32))
    kernel[np.random.default_rng(1).random((64, 32)) < 0.9] = 0
    model.set_weights([kernel])
    model.export(tmp_path / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    path = tmp_path / "sparse.tflite"
    path.write_bytes(converter.convert())
    assert path.stat().st_size < kernel.size * 4  # it is stored sparse indeed
    assert parameters(path) == Parameters(kernel.size, np.count_nonzero(kernel))


def test_a_damaged_file_is_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes(files["tflite"].read_bytes()[:500])
    with pytest.raises(TfpruneError, match="export it again"):
        parameters(path)
