"""TFLite Micro runs what is exported for it, and tells the arena that its interpreter takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.devices import find_device
from tfprune.errors import UsageError
from tfprune.formats import tflite_micro
from tfprune.formats.c_array import read
from tfprune.weights import round_weights

DEVICE = find_device("tflm")
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite_micro is not installed"
)


@needs_package
def test_what_microcontrollers_run_tells_its_arena(export_paths: dict[str, Path]) -> None:
    files = [export_paths[name] for name in DEVICE.formats if name in export_paths]
    for path, found in zip(files, DEVICE.measure(files), strict=True):
        content = read(path) if path.suffix == ".cc" else path.read_bytes()
        assert not found.refusal
        assert found.figures["flash_bytes"] == len(content)
        # The estimate of the card is never below the real arena.
        estimate = tflite_micro.memory(content).arena_bytes
        assert estimate - 4096 <= found.figures["arena_bytes"] <= estimate


@needs_package
def test_what_does_not_run_there_is_refused_by_its_reason(
    export_paths: dict[str, Path], tmp_path: Path
) -> None:
    x = keras.Input((4, 4, 1))
    odd = keras.Model(x, keras.layers.Flatten()(keras.ops.arctan2(x, x + 1.0)))
    (artifact,) = tfprune.export(odd, tmp_path, ["tflite"], np.ones((20, 4, 4, 1)), name="odd")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(export_paths["tflite"].read_bytes()[:2000])
    odd_one, other, damaged, whole = DEVICE.measure(
        [artifact.path, export_paths["keras"], broken, export_paths["tflite-int8"]]
    )
    assert "TFLite Micro has no kernel for ATAN2" in odd_one.refusal
    assert "neither a .tflite file nor a C array" in other.refusal
    assert "broken.tflite" in damaged.refusal
    assert not odd_one.figures and not other.figures and not damaged.figures
    assert whole.figures["arena_bytes"] > 0


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[tflm\]'"):
        DEVICE.check()


@needs_package
def test_weights_in_tables_run_there(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((256,)), keras.layers.Dense(32), keras.layers.Dense(2)])
    data = np.random.default_rng(0).normal(size=(80, 256))
    made = tfprune.export(round_weights(net, 3), tmp_path, ["tflite-int8", "tflite-lut"], data)
    plain, coded = DEVICE.measure([each.path for each in made])
    assert coded.figures["flash_bytes"] < plain.figures["flash_bytes"]
    # Vela knows nothing of the tables.
    (refused,) = find_device("ethos-u55-128").measure([made[1].path])
    assert "is made for TFLite Micro: export it as tflite-int8" in refused.refusal
    # The weights are written out before they are used.
    assert coded.figures["arena_bytes"] > plain.figures["arena_bytes"]
