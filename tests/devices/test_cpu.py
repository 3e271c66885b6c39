"""This computer tells milliseconds and memory of what runs here."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.devices import find_device


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    two = keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Concatenate()([a, b])))
    one = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3)])
    folder = tmp_path_factory.mktemp("files")
    data = np.random.default_rng(0).uniform(size=(60, 6, 6, 1))
    tfprune.export(two, folder, ["tflite"], name="two")
    tfprune.export(one, folder, ["tflite", "c-array"], data, name="one")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.slow
def test_files_of_different_inputs_are_each_measured(paths):
    files = [paths["two.tflite"], paths["one.tflite"], paths["one_int8.cc"], paths["one.tflite"]]
    broken = files[0].with_name("broken.tflite")
    broken.write_bytes(files[0].read_bytes()[:99])
    *found, refused = find_device("cpu", rounds=3).measure([*files, broken])
    assert all(each.figures["device_ms"] > 0 < each.figures["memory_bytes"] for each in found)
    assert found[1] == found[3]
    assert "broken.tflite" in refused.refusal and not refused.figures
