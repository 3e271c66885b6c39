"""A file is first run in a process of its own: it tells its memory, and crashes there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import load
from tfprune.measure import first_run
from tfprune.measure.first_run import first_runs

MIB = 2**20


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that only a fresh Python imports."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code: str) -> str:
        (tmp_path / "does_it.py").write_text(code)
        return "does_it"

    return write


def one_line(error: pytest.ExceptionInfo[BaseException], path: Path) -> str:
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    return message


def dense(path: Path, size: int) -> Path:
    """A TFLite file with `size * size` float32 weights."""
    model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(size)])
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets an earlier peak")
def test_memory_grows_with_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small, large = (dense(tmp_path / f"{size}.tflite", size) for size in (64, 2048))
    runs = first_runs([large, small], threads=1)
    weights = 4 * 2048 * 2048
    # The file is read whole, and XNNPACK packs the weights anew.
    assert weights < runs[0].memory_bytes < 4 * weights
    assert runs[1].memory_bytes < weights / 2
    assert runs[0].baseline_bytes > 10 * MIB


def test_a_c_array_takes_what_its_file_takes(files: dict[str, Path], tmp_path: Path) -> None:
    text = ", ".join(f"0x{byte:02x}" for byte in files["tflite"].read_bytes())
    path = tmp_path / "model.cc"
    path.write_text(f"alignas(16) const unsigned char model[] = {{{text},}};")
    packed, plain = first_runs([path, files["tflite"]])
    assert abs(packed.memory_bytes - plain.memory_bytes) < 2 * MIB
    path.write_text("int main() {}")
    with pytest.raises(TfpruneError) as error:
        first_run(path)
    assert "holds no C array" in one_line(error, path)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", r"crashes the interpreter (SIGABRT)"),
        ("import os; os._exit(3)", r"crashes the interpreter (exit code 3)"),
        ("raise RuntimeError('two\\nlines')", "cannot be loaded and run (two): export it again"),
    ],
)
def test_a_crash_is_one_line(
    files: dict[str, Path], module: Callable[[str], str], code: str, says: str
) -> None:
    path = files["tflite"]
    with pytest.raises(TfpruneError) as error:
        first_run(path, modules=[module(code)])
    assert says in one_line(error, path)


def test_a_file_that_takes_too_long_is_one_line(
    files: dict[str, Path], module: Callable[[str], str]
) -> None:
    path = files["tflite"]
    with pytest.raises(TfpruneError) as error:
        first_run(path, modules=[module("import time; time.sleep(60)")], timeout=2)
    assert "takes longer than 2 s" in one_line(error, path)


def test_a_file_that_corrupts_memory_does_so_elsewhere(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """A valid flatbuffer whose scales make no sense: LiteRT 2.3 writes beyond its memory."""
    model = schema.ModelT.InitFromPackedBuf(files["tflite-int8"].read_bytes(), 0)
    for tensor in model.subgraphs[0].tensors:
        quantization = tensor.quantization
        if quantization is not None and quantization.scale is not None:
            quantization.scale = np.full(len(quantization.scale), np.finfo(np.float32).max)
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "huge.tflite"
    path.write_bytes(builder.Output())
    with pytest.raises(TfpruneError) as error:
        first_run(path)
    one_line(error, path)


def test_images_beyond_reason_are_refused(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    path = tmp_path / "open.tflite"
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert first_run(path, input_shape=(9, 7, 3)).memory_bytes >= 0
    with pytest.raises(TfpruneError) as error:
        first_run(path, input_shape=(1 << 20, 1 << 20, 3))
    assert "do not trust this file" in one_line(error, path)


def test_a_missing_file_and_an_unknown_kind_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(TfpruneError, match="does not exist"):
        first_run(tmp_path / "no.tflite")
    (tmp_path / "model.bin").touch()
    with pytest.raises(UsageError) as usage:
        first_run(tmp_path / "model.bin")
    assert "is not an artifact" in one_line(usage, tmp_path / "model.bin")


def test_modules_beside_the_file_are_not_imported(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken in')")
    path = tmp_path / "model.tflite"
    path.write_bytes(files["tflite"].read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    assert first_run("model.tflite").memory_bytes > 0
    assert load("model.tflite").name == "model.tflite"
