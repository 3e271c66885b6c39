"""Float inputs and outputs around an integer file: the answers stay."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.formats import load
from tfprune.formats.tflite_file import with_float_ends


@pytest.mark.parametrize("form", ["tflite-int8", "tflite-int16x8", "tflite"])
def test_a_file_with_float_ends_answers_the_same(
    form: str, export_images: np.ndarray, tmp_path: Path
) -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    (made,) = tfprune.export(model, tmp_path, formats=[form], representative_data=export_images)
    was = load(made.path)
    path = tmp_path / "float.tflite"
    path.write_bytes(with_float_ends(made.path.read_bytes()))
    now = load(path)
    assert [each.dtype for each in (*now.inputs, *now.outputs)] == ["float32", "float32"]
    assert [each.name for each in now.inputs] == [each.name for each in was.inputs]
    images = export_images.round()
    assert np.array_equal(now.predict(images), was.predict(images))
    same = path.read_bytes() == made.path.read_bytes()
    assert same == (was.inputs[0].dtype == "float32")
