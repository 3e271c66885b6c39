"""`tfprune export`: its options, its table, its document."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tfprune.cli import main


def _export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net for the digits: 8x8x1, ten classes."""
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(10)]
    path = tmp_path_factory.mktemp("model") / "net.keras"
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), *layers]).save(path)
    return path


@pytest.mark.slow
def test_formats_repeat_and_the_table_has_a_row_for_each(model: Path, tmp_path: Path) -> None:
    result = _export(
        model, "-f", "tflite", "-f", "c-array", "--io", "float", "--data", "digits", "-o", tmp_path
    )
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split()[:4] == ["artifact", "format", "batch", "size"]
    assert [row.split()[:3] for row in rows] == [
        [str(tmp_path / "model.tflite"), "tflite", "1"],
        [str(tmp_path / "model_int8.cc"), "c-array", "1"],
    ]
    assert "arena, estimated" in header
    document = json.loads((tmp_path / "artifacts.json").read_text())
    assert [each["format"] for each in document["artifacts"]] == ["tflite", "c-array"]
    card = document["artifacts"][1]
    assert (card["inputs"][0]["dtype"], card["pixels"]) == ("float32", "0..255")
    assert "QUANTIZE" in card["memory"]["operators"]


def test_json_is_one_document(model: Path, tmp_path: Path) -> None:
    labels = tmp_path / "classes.txt"
    labels.write_text("\n".join("abcdefghij"))
    out = tmp_path / "out"
    result = _export(model, "-f", "tflite", "--labels", labels, "--json", "-o", out)
    assert result.exit_code == 0, result.output
    (card,) = json.loads(result.stdout)
    assert card == json.loads((out / "artifacts.json").read_text())["artifacts"][0]
    assert card["labels"] == list("abcdefghij")
    assert (card["compared"], card["compared_on"]) == (256, "random")
    assert (out / "labels.txt").read_text() == labels.read_text() + "\n"


@pytest.mark.parametrize(("batch", "size"), [("3", 3), ("dynamic", None)])
def test_the_batch_is_a_number_or_any(
    model: Path, tmp_path: Path, batch: str, size: int | None
) -> None:
    result = _export(model, "-f", "tflite", "--batch", batch, "--json", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    (card,) = json.loads(result.stdout)
    assert card["inputs"][0]["shape"] == [size, 8, 8, 1]


def test_weights_may_be_rounded_first(model: Path, tmp_path: Path) -> None:
    result = _export(model, "-f", "keras", "--weight-bits", "3", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    kernel = keras.saving.load_model(tmp_path / "model.keras").layers[-1].kernel.numpy()
    assert all(len(np.unique(channel)) <= 7 for channel in kernel.T)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f", "tflite-int8"], "format 'tflite-int8' needs representative_data"),
        (["-f", "tflite-spars"], "did you mean 'tflite-sparse'?"),
        (["-f", "tflite-sparse", "--io", "int4"], "'int4' is not one of 'int8', 'float'"),
        (["-f", "tflite", "--batch", "0"], "0 is not in the range 1<=x<=65536"),
        (["-f", "tflite", "--batch", "many"], "'many' is not a valid integer"),
        (["-f", "keras", "--batch", "2"], "keras take any number of examples: leave the batch out"),
        (["--labels", "missing.txt"], "missing.txt cannot be read as labels"),
    ],
)
def test_a_wrong_call_is_one_line(
    model: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    result = _export(model, *arguments, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert says in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
