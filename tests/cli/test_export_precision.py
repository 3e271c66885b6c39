"""`tfprune export` keeps layers in another precision, and takes recipes."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from click.testing import CliRunner

from tfprune.cli import main


@pytest.fixture
def net(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x))
    path = tmp_path / "net.keras"
    keras.Model(inputs, x).save(path)
    return path


@pytest.mark.slow
def test_a_layer_is_kept_and_a_recipe_is_followed(net: Path, tmp_path: Path) -> None:
    options = ["-f", "tflite-int8", "--keep", "logits=float32", "-f", "tflite-recipe"]
    options += ["--recipe", "weight_only_wi8_afp32", "--data", "digits", "-o", str(tmp_path / "o")]
    result = CliRunner().invoke(main, ["export", str(net), *options])
    assert result.exit_code == 0, result.output
    files = {path.name for path in (tmp_path / "o").iterdir()}
    assert {"model.int8.tflite", "model.recipe.tflite"} <= files


@pytest.mark.parametrize("keep", ["logits", "logits=int4", "=float32"])
def test_what_is_no_precision_of_a_layer_is_one_line(net: Path, tmp_path: Path, keep: str) -> None:
    out = str(tmp_path / "o")
    result = CliRunner().invoke(
        main, ["export", str(net), "-f", "tflite-int8", "--keep", keep, "-o", out]
    )
    assert result.exit_code == 2
    assert f"{keep!r} is not of the form LAYER=float32 or LAYER=int16" in result.stderr
