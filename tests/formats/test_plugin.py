"""A module and two rows are a format: it is exported, measured and verified as all others."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.formats import toy
from tfprune.artifacts import export, verify, write_manifest
from tfprune.errors import TfpruneError
from tfprune.formats import FILE_TYPES, FORMATS, FileType, Format, load
from tfprune.measure import first_run, measure_files

IMAGES = np.random.default_rng(0).uniform(-1, 1, (40, 12)).astype(np.float32)


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILE_TYPES, "toy", FileType(toy.__name__, (".toy",), "numpy"))
    monkeypatch.setitem(FORMATS, "toy", Format(".toy", toy.write))


@pytest.mark.slow
def test_it_is_exported_measured_and_verified(model: keras.Model, tmp_path: Path) -> None:
    artifacts = export(model, tmp_path, ["toy", "tflite"], IMAGES)
    path = artifacts[0].path
    assert (path.name, artifacts[0].agreement) == ("model.toy", 1.0)
    assert artifacts[0].inputs == load(path).inputs

    labels = np.asarray(model(IMAGES)).argmax(axis=1)
    table = measure_files([each.path for each in artifacts], (IMAGES, labels), rounds=3)
    assert table["format"].tolist() == ["toy", "tflite"]
    assert table["accuracy"].tolist() == [1.0, 1.0]
    assert table["macs"].tolist() == [36, 36]
    assert table["parameters"].tolist()[0] == 39
    assert (table["latency_ms"] > 0).all()
    assert (table["memory_bytes"] >= 0).all()

    write_manifest(tmp_path, artifacts)
    assert [each.said for each in verify(tmp_path) if not each.passed] == []


@pytest.mark.slow
def test_a_damaged_one_is_one_line(model: keras.Model, tmp_path: Path) -> None:
    (artifact,) = export(model, tmp_path, ["toy"], IMAGES)
    artifact.path.write_bytes(b"PK nothing")
    for act in (load, first_run):
        with pytest.raises(TfpruneError, match=r"model\.toy is not a toy"):
            act(artifact.path)
