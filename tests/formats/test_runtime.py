from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.archives import unpack
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import load
from tfprune.formats.tflite import dequantize, quantize
from tfprune.measure import agreement

FORMATS = ["keras", "savedmodel", "tflite", "tflite-int8"]
FLOAT_FORMATS = FORMATS[:3]


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert ": " in message  # what, then what to do
    return message


@pytest.mark.parametrize("form", FORMATS)
def test_each_file_is_known_by_its_format(files: dict[str, Path], form: str) -> None:
    runtime = load(files[form])
    assert runtime.format == form
    assert runtime.fixed_batch == (1 if form.startswith("tflite") else None)
    assert runtime.input_shape == (8, 8, 3)


@pytest.mark.parametrize("form", FLOAT_FORMATS)
def test_float_files_answer_as_the_model(
    files: dict[str, Path], form: str, model: keras.Model, images: np.ndarray
) -> None:
    expected = model(images.astype(np.float32), training=False).numpy()
    outputs = load(files[form]).predict(images, batch_size=16)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-3)


def test_int8_answers_nearly_as_the_model(
    files: dict[str, Path], model: keras.Model, images: np.ndarray
) -> None:
    expected = load(model).predict(images)
    found = agreement(load(files["tflite-int8"]).predict(images), expected)
    assert found.share >= 0.9
    assert found.off < 0.05


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_do_not_change_answers(
    files: dict[str, Path], form: str, batch_size: int, images: np.ndarray
) -> None:
    runtime = load(files[form])
    whole = runtime.predict(images, batch_size=len(images))
    np.testing.assert_allclose(
        runtime.predict(images, batch_size=batch_size), whole, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("form", FORMATS)
def test_one_runs_its_image_whatever_predict_does_between(
    files: dict[str, Path], form: str, images: np.ndarray
) -> None:
    runtime = load(files[form])
    call = runtime.one(images[3])
    before = call()
    everything = runtime.predict(images)
    np.testing.assert_array_equal(call(), before)
    assert before.shape == (1, 4)
    assert before.argmax() == everything[3].argmax()


def test_one_of_int8_stays_int8(files: dict[str, Path], images: np.ndarray) -> None:
    assert load(files["tflite-int8"]).one(images[0])().dtype == np.int8


def test_a_model_in_memory_runs_too(model: keras.Model, images: np.ndarray) -> None:
    expected = model(images.astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(load(model).predict(images), expected, rtol=1e-4, atol=1e-3)


def test_a_savedmodel_directory_runs_too(
    files: dict[str, Path], images: np.ndarray, tmp_path: Path
) -> None:
    unpack(files["savedmodel"], tmp_path)
    np.testing.assert_array_equal(
        load(tmp_path).predict(images), load(files["savedmodel"]).predict(images)
    )


def test_a_keras_export_runs_too(model: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    model.export(tmp_path / "saved", verbose=False)
    np.testing.assert_allclose(
        load(tmp_path / "saved").predict(images), load(model).predict(images), rtol=1e-4, atol=1e-3
    )


def test_the_unpacked_archive_goes_with_its_runtime(
    files: dict[str, Path], images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runtime = load(files["savedmodel"])
    assert list(tmp_path.iterdir())
    runtime.predict(images)
    runtime._unpacked.cleanup()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_a_fixed_batch_is_filled_up(model: keras.Model, images: np.ndarray) -> None:
    fixed = keras.Input((8, 8, 3), batch_size=8)
    runtime = load(keras.Model(fixed, model(fixed)))
    np.testing.assert_allclose(
        runtime.predict(images[:11]), load(model).predict(images[:11]), rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(
        runtime.one(images[0])(), np.repeat(load(model).predict(images[:1]), 8, axis=0), rtol=1e-4
    )


def test_a_tflite_file_that_cannot_be_resized_runs_one_by_one(
    images: np.ndarray, tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).normal(size=(192, 3)).astype(np.float32)

    # The reshape is baked to one example, as some exporters write it.
    def call(x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.reshape(x, [1, 192]), weights)

    traced = tf.function(call).get_concrete_function(tf.TensorSpec([None, 8, 8, 3], tf.float32))
    path = tmp_path / "baked.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())
    outputs = load(path).predict(images[:5])
    np.testing.assert_allclose(outputs, images[:5].reshape(5, 192) @ weights, rtol=1e-4)


def test_tflite_is_measured_without_tensorflow(files: dict[str, Path]) -> None:
    code = (
        "import sys, numpy as np; from tfprune.formats import load;"
        "from tfprune.measure import parameters;"
        f"load({str(files['tflite'])!r}).predict(np.zeros((1, 8, 8, 3)));"
        f"parameters({str(files['tflite'])!r});"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_quantizing_rounds_and_saturates() -> None:
    details = {"dtype": np.int8, "quantization": (0.5, -3)}
    x = np.array([0.0, 0.5, 0.7, -1.0, 1e6, -1e6], np.float32)
    q = quantize(x, details)
    assert q.dtype == np.int8
    np.testing.assert_array_equal(q, [-3, -2, -2, -5, 127, -128])
    np.testing.assert_array_equal(dequantize(q, details), [0, 0.5, 0.5, -1, 65, -62.5])


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.97])
def test_a_truncated_file_is_one_line(
    files: dict[str, Path], form: str, keep: float, tmp_path: Path
) -> None:
    content = files[form].read_bytes()
    path = tmp_path / files[form].name
    path.write_bytes(content[: keep if keep > 1 else int(keep * len(content))])
    with pytest.raises(TfpruneError) as error:
        load(path)
    assert path.name in one_line(error)


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
@pytest.mark.parametrize(
    ("form", "other"),
    # Both TFLite formats share a suffix and are told apart by their content.
    [(a, b) for a in FORMATS for b in FORMATS if a.split("-")[0] != b.split("-")[0]],
)
def test_a_renamed_file_is_one_line(
    files: dict[str, Path], form: str, other: str, tmp_path: Path
) -> None:
    path = shutil.copy(files[form], tmp_path / files[other].name)
    with pytest.raises(TfpruneError) as error:
        load(path)
    assert path.name in one_line(error)


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
def test_noise_behind_the_tflite_identifier_does_not_crash(tmp_path: Path) -> None:
    path = tmp_path / "noise.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + np.random.default_rng(0).bytes(4000))
    with pytest.raises(TfpruneError) as error:
        load(path)
    assert "noise.tflite" in one_line(error)


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
@pytest.mark.parametrize("lost", ["saved_model.pb", "variables/variables.index"])
def test_an_incomplete_savedmodel_is_one_line(
    files: dict[str, Path], lost: str, tmp_path: Path
) -> None:
    unpack(files["savedmodel"], tmp_path)
    (tmp_path / "model" / lost).write_bytes(b"\xff\xff\xff")
    with pytest.raises(TfpruneError) as error:
        load(tmp_path / "model")
    one_line(error)


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in {"size": 1, **values}.items():
        setattr(info, key, value)
    return info


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
@pytest.mark.parametrize(
    "hostile",
    [
        member("../outside"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        member("device", type=tarfile.CHRTYPE, size=0),
    ],
    ids=lambda info: info.name,
)
def test_a_hostile_archive_is_refused(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    path = archive(tmp_path / "model.tar.gz", hostile)
    with pytest.raises(TfpruneError) as error:
        load(path)
    assert "unsafe member" in one_line(error)
    assert [p.name for p in tmp_path.iterdir()] == ["model.tar.gz"]


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
def test_an_archive_without_a_savedmodel_is_one_line(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.tar.gz", member("readme"))
    with pytest.raises(TfpruneError) as error:
        load(path)
    assert "0 SavedModels" in one_line(error)


def test_a_missing_file_and_an_unknown_kind_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(TfpruneError) as error:
        load(tmp_path / "no.tflite")
    assert "does not exist" in one_line(error)
    (tmp_path / "model.pb").touch()
    with pytest.raises(UsageError) as usage:
        load(tmp_path / "model.pb")
    assert "model.pb" in one_line(usage)


def test_a_model_without_one_input_is_one_line() -> None:
    with pytest.raises(UsageError) as error:
        load(keras.Sequential([keras.layers.Dense(2)]))
    one_line(error)
    a, b = keras.Input((2,)), keras.Input((2,))
    with pytest.raises(UsageError) as error:
        load(keras.Model([a, b], keras.layers.Add()([a, b]))).predict(np.zeros((1, 2)))
    assert "2 inputs" in one_line(error)


@pytest.mark.parametrize("form", FORMATS)
def test_images_that_do_not_fit_are_one_line(files: dict[str, Path], form: str) -> None:
    runtime = load(files[form])
    for shape in [(2, 8, 9, 3), (2, 8, 8), (0, 8, 8, 3)]:
        with pytest.raises(UsageError) as error:
            runtime.predict(np.zeros(shape))
        assert runtime.name in one_line(error)
    with pytest.raises(UsageError):
        runtime.one(np.zeros((1, 8, 8, 3)))
    with pytest.raises(UsageError):
        runtime.predict(np.zeros((1, 8, 8, 3)), batch_size=0)


def test_threads_belong_to_single_images(files: dict[str, Path]) -> None:
    assert load(files["tflite"]).threads == 1
    assert load(files["tflite"], threads=2).threads == 2
    with pytest.raises(UsageError):
        load(files["tflite"], threads=0)
