"""Every kind of TFLite file: what it is, what it counts, and that batches change nothing."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tests.tables import slow
from tfprune.errors import TfpruneError
from tfprune.formats import load, tflite
from tfprune.formats.tflite import quantize
from tfprune.formats.tflite_file import TFLiteFile
from tfprune.measure import evaluate, parameters

KINDS = ["tflite-float16", "tflite-dynamic", "tflite-int16x8", "c-array", "c-array-float"]


@pytest.fixture(scope="module")
def every(
    model: keras.Model,
    images: np.ndarray,
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """One file of every format that LiteRT runs, sparse excepted."""
    directory = tmp_path_factory.mktemp("kinds")
    artifacts = tfprune.export(model, directory, KINDS, representative_data=images)
    found = {artifact.format: artifact.path for artifact in artifacts}
    return {**found, **{form: files[form] for form in ("tflite", "tflite-int8")}}


def converted(path: Path, call: object, *shape: int | None) -> Path:
    """A TFLite file of a TensorFlow function."""
    spec = tf.TensorSpec(shape, tf.float32)
    traced = tf.function(call).get_concrete_function(spec)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())
    return path


@pytest.mark.parametrize("form", ["tflite", "tflite-int8", *KINDS])
def test_each_file_is_known_by_its_content(
    every: dict[str, Path], form: str, tmp_path: Path
) -> None:
    copy = tmp_path / f"unnamed{every[form].suffix}"
    copy.write_bytes(every[form].read_bytes())
    runtime = load(copy)
    # The converter quantizes tensors of more than 1,024 weights only, and here is none.
    assert runtime.format == ("tflite" if form == "tflite-dynamic" else form)
    assert runtime.delegate == ("none" if form == "tflite-int16x8" else "XNNPACK")


@pytest.mark.slow
def test_dynamic_and_sparse_files_are_known_too(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, use_bias=False)])
    kernel = np.random.default_rng(0).uniform(0.5, 1, (64, 32))
    kernel[np.random.default_rng(1).random((64, 32)) < 0.9] = 0
    model.set_weights([kernel])
    for artifact in tfprune.export(model, tmp_path, ["tflite-dynamic", "tflite-sparse"]):
        assert load(artifact.path).format == artifact.format
        assert load(artifact.path).macs() == 64 * 32
        assert parameters(artifact.path).total == 64 * 32


@pytest.mark.parametrize("form", ["tflite", "tflite-int8", *KINDS])
def test_macs_are_those_of_the_model(every: dict[str, Path], form: str, model: keras.Model) -> None:
    assert load(every[form]).macs() == tfprune.macs(model)


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        slow(lambda x: keras.layers.Dense(3, "sigmoid")(x), "sigmoid"),
        (lambda x: keras.layers.Reshape((3,))(keras.layers.Dense(3, "softmax")(x)), "softmax"),
        (lambda x: keras.layers.Dense(3)(x), "none"),
        slow(lambda x: keras.layers.Dense(3, "relu")(x), None),
        slow(lambda x: keras.layers.Reshape((3, 1))(keras.layers.Dense(3, "softmax")(x)), None),
    ],
    ids=["sigmoid", "softmax", "logits", "relu", "other axis"],
)
def test_the_last_operator_tells_logits_from_probabilities(
    tmp_path: Path, last: Any, wanted: str | None
) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, last(inputs))
    images = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    for artifact in tfprune.export(model, tmp_path, ["tflite", "tflite-int8"], images):
        runtime = load(artifact.path)
        assert runtime.activation(runtime.outputs[0].name) == wanted, artifact.format


@pytest.fixture(scope="module")
def dynamic(
    model: keras.Model, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Files with an open batch, as earlier versions exported all."""
    directory = tmp_path_factory.mktemp("dynamic")
    kinds = ["tflite", "tflite-int8"]
    artifacts = tfprune.export(model, directory, kinds, images, batch="dynamic")
    return {artifact.format: artifact.path for artifact in artifacts}


@pytest.mark.parametrize("form", ["tflite", "tflite-int8"])
def test_an_open_batch_in_threads_answers_as_images_alone(
    dynamic: dict[str, Path], form: str, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(dynamic[form]).fixed_batch is None
    answers_alone(dynamic[form], images, monkeypatch)


@pytest.mark.parametrize("form", ["tflite", "tflite-int8", *KINDS])
def test_batches_in_threads_answer_as_images_alone(
    every: dict[str, Path], form: str, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(every[form]).fixed_batch == 1
    answers_alone(every[form], images, monkeypatch, exactly=True)


def answers_alone(
    path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, exactly: bool = False
) -> None:
    """Three threads give for each image what it gives alone."""
    monkeypatch.setattr(tflite, "worker_count", lambda: 3)
    monkeypatch.setattr(tflite, "_LONG_SECONDS", 0.0)
    runtime = load(path)
    alone = np.concatenate([runtime.predict(image[None]) for image in images])
    many = np.tile(images, (5, 1, 1, 1))  # the last batch is not full
    together = runtime.predict(many)
    if exactly or runtime.output_step:
        np.testing.assert_array_equal(together, np.tile(alone, (5, 1)))
    else:
        np.testing.assert_allclose(together, np.tile(alone, (5, 1)), rtol=1e-4, atol=1e-3)
    assert (together.argmax(axis=1) == np.tile(alone.argmax(axis=1), 5)).all()


def test_threads_share_the_images(
    every: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "worker_count", lambda: 2)
    monkeypatch.setattr(tflite, "_LONG_SECONDS", 0.0)
    told: dict[int, list[int]] = defaultdict(list)
    both = threading.Barrier(2, timeout=60)

    def progress(count: int) -> None:
        mine = told[threading.get_ident()]
        if not mine:  # its own list: the other thread may be batches ahead by now
            both.wait()  # passes only where two threads are at work
        mine.append(count)

    load(every["tflite"]).predict(images, batch_size=8, progress=progress)
    assert sum(sum(counts) for counts in told.values()) == len(images)
    assert len(told) == 2


def test_a_graph_that_mixes_images_runs_them_alone(tmp_path: Path, images: np.ndarray) -> None:
    """Each image minus the batch's mean: alone all zeros, in a batch not."""
    path = converted(
        tmp_path / "mixing.tflite",
        lambda x: tf.reduce_sum(x - tf.reduce_mean(x, axis=0, keepdims=True), axis=[1, 2]),
        *(None, 8, 8, 3),
    )
    assert not load(path).predict(images).any()


def test_memory_bounds_the_batch(
    dynamic: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "worker_count", lambda: 1)
    runtime = load(dynamic["tflite"])
    content = dynamic["tflite"].read_bytes()
    each = TFLiteFile(content).activation_bytes()
    # Three maps of 8x8 with four channels, at the least.
    assert each >= 3 * 4 * 8 * 8 * 4
    monkeypatch.setattr(tflite, "_BATCH_BYTES", 5 * each)
    sizes: list[int] = []
    runtime.predict(images, progress=sizes.append)
    assert set(sizes) == {5}


def test_an_error_in_one_thread_ends_all(
    every: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "worker_count", lambda: 2)
    monkeypatch.setattr(tflite, "_LONG_SECONDS", 0.0)
    calls: list[int] = []

    def progress(count: int) -> None:
        calls.append(count)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        load(every["tflite"]).predict(np.tile(images, (20, 1, 1, 1)), 8, progress)
    assert len(calls) <= 4


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_looking_bytes_up_quantizes_as_computing_does(dtype: type) -> None:
    details = {"dtype": dtype, "quantization": (0.37, 5)}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 10, 10), dtype=np.uint8)
    np.testing.assert_array_equal(
        quantize(pixels, details), quantize(pixels.astype(np.float32), details)
    )


def test_an_open_size_has_no_macs(tmp_path: Path) -> None:
    kernel = np.ones((3, 3, 3, 2), np.float32)
    path = converted(
        tmp_path / "open.tflite",
        lambda x: tf.reduce_mean(tf.nn.conv2d(x, kernel, 1, "SAME"), axis=[1, 2]),
        *(None, None, None, 3),
    )
    assert load(path).macs() is None
    assert load(path).predict(np.ones((2, 9, 7, 3))).shape == (2, 2)


def test_int4_weights_are_two_a_byte() -> None:
    from tfprune.formats.tflite_file import _nibbles

    stored = np.array([0x21, 0xF8, 0x07], np.uint8)
    assert _nibbles(stored, 5).tolist() == [1, 2, -8, -1, 7]


def test_a_name_that_is_no_text_is_one_line(every: dict[str, Path], tmp_path: Path) -> None:
    content = every["tflite"].read_bytes()
    runtime = load(every["tflite"])
    (details,) = runtime._inputs.values()  # type: ignore[attr-defined]
    name = details["name"].encode()
    path = tmp_path / "odd.tflite"
    path.write_bytes(content.replace(name, b"\xff" * len(name)))
    with pytest.raises(TfpruneError) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert "odd.tflite" in str(error.value)


@pytest.mark.parametrize("form", ["tflite-float16", "tflite-dynamic", "c-array-float"])
def test_other_kinds_count_as_the_plain_file_does(every: dict[str, Path], form: str) -> None:
    assert parameters(every[form]).total == parameters(every["tflite"]).total


def test_each_class_has_its_accuracy(every: dict[str, Path], images: np.ndarray) -> None:
    runtime = load(every["tflite-int8"])
    predicted = runtime.predict(images).argmax(axis=1)
    labels = np.where(np.arange(len(images)) % 2, predicted, 0)
    found = evaluate(runtime, (images, labels))
    for number in range(4):
        of_class = labels == number
        assert found.class_examples[number] == of_class.sum()
        if of_class.any():
            assert found.per_class[number] == np.mean(predicted[of_class] == number)
        else:
            assert found.per_class[number] is None
    known = [(a, n) for a, n in zip(found.per_class, found.class_examples, strict=True) if n]
    assert sum(a * n for a, n in known) / len(images) == pytest.approx(found.value)
