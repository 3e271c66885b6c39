from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import load
from tfprune.measure import evaluate, measure_files, parameters
from tfprune.measure.first_run import first_run
from tfprune.weights import prune_once

pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def _exported(model: keras.Model, directory: Path) -> Path:
    (artifact,) = tfprune.export(model, directory, formats=["onnx"])
    return artifact.path


@pytest.fixture(scope="module")
def file(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(model, tmp_path_factory.mktemp("onnx"))


def test_it_answers_as_the_model(file: Path, model: keras.Model, images: np.ndarray) -> None:
    runtime = load(file)
    assert (runtime.format, runtime.input_shape) == ("onnx", (8, 8, 3))
    expected = model(images.astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(runtime.predict(images, 16), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(runtime.one(images[3])(), expected[3:4], rtol=1e-4, atol=1e-3)


def test_its_accuracy_is_the_models(file: Path, model: keras.Model, images: np.ndarray) -> None:
    labels = np.arange(len(images)) % 4
    found, expected = (evaluate(load(each), (images, labels)) for each in (file, model))
    assert found.value == expected.value
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)


def test_every_multiply_accumulate_is_in_the_file(tmp_path: Path) -> None:
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, strides=2, padding="same"),
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            layers.Conv2D(8, 3),
            layers.Conv2DTranspose(4, 2, strides=2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    assert load(_exported(net, tmp_path)).macs() == tfprune.macs(net)


def test_a_count_is_right_or_none(tmp_path: Path) -> None:
    # ONNX joins batch and positions by sizes that it may compute only while it runs.
    layers = keras.layers
    net = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Dense(5)])
    assert load(_exported(net, tmp_path)).macs() in (None, tfprune.macs(net))


def test_zeros_are_counted_in_the_file(model: keras.Model, tmp_path: Path) -> None:
    pruned = prune_once(model, 0.5)
    found = parameters(load(_exported(pruned, tmp_path)))
    # BatchNorm may be folded, so only the kernels' zeros are sure.
    zeros = sum(int((w.numpy() == 0).sum()) for w in pruned.trainable_weights)
    assert found.total - found.nonzero == zeros


def test_it_stands_beside_other_files(file: Path, images: np.ndarray) -> None:
    row = measure_files([file], (images, np.arange(len(images)) % 4), rounds=3, threads=1).iloc[0]
    assert (row["format"], row["threads"]) == ("onnx", 1)
    assert row["macs"] > 0
    assert row["latency_ms"] > 0
    assert row["memory_bytes"] >= 0
    assert row["bytes"] == file.stat().st_size


@pytest.mark.parametrize("content", [b"", b"no model", None], ids=["empty", "text", "truncated"])
def test_a_damaged_file_is_one_line(file: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(file.read_bytes()[:-50] if content is None else content)
    for act in (load, first_run):
        with pytest.raises(TfpruneError, match=r"model\.onnx") as error:
            act(path)
        assert "\n" not in str(error.value)


def test_an_image_that_does_not_fit_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        load(file).predict(np.zeros((1, 9, 8, 3)))
