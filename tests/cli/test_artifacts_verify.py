"""`tfprune verify`: one line a file, exit 1 where one of them fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result

from tfprune.artifacts import export, write_manifest
from tfprune.cli import main


def _verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    write_manifest(tmp_path, export(model, tmp_path, ["tflite", "c-array-float"]))
    return tmp_path


def test_what_is_whole_passes(folder: Path) -> None:
    result = _verify(folder)
    assert result.exit_code == 0, result.output
    sizes = [(folder / name).stat().st_size for name in ("model.tflite", "model_float.cc")]
    assert result.stdout.splitlines() == [
        f"ok      model.tflite: {sizes[0]:,} bytes, loads and runs",
        f"ok      model_float.cc: {sizes[1]:,} bytes, loads and runs",
    ]


def test_what_is_damaged_fails_in_one_line(folder: Path) -> None:
    (folder / "model.tflite").write_bytes(b"\0\0\0\0TFL3")
    (folder / "model_float.h").unlink()
    result = _verify(folder)
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first.startswith("FAILED  model.tflite: model.tflite has 8 bytes, not the ")
    assert second == "FAILED  model_float.cc: model_float.h is missing: export again"
    document = json.loads(_verify(folder, "--json").stdout)
    assert document["passed"] is False
    assert [each["passed"] for each in document["artifacts"]] == [False, False]


def test_a_directory_without_a_list_is_one_line(tmp_path: Path) -> None:
    result = _verify(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path} holds neither artifacts.json nor manifest.json: "
        "give a directory that tfprune exported to, or a run\n"
    )
    assert _verify(tmp_path / "missing").exit_code == 2


def test_tflite_is_verified_without_tensorflow(folder: Path) -> None:
    code = (
        "import sys; from tfprune.cli import main;"
        f"main(['verify', {str(folder)!r}], standalone_mode=False);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok ") == 2
