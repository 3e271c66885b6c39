"""A format whose packages are missing is refused before anything is made."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

import keras
import pytest
from tfprune.pipeline.kinds import FormatName

from tfprune.artifacts import export
from tfprune.errors import UsageError
from tfprune.formats import registry
from tfprune.pipeline import Pipeline
from tfprune.pipeline.runner import run


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "onnxruntime" else find(name, *more),
    )


SAID = r"format 'onnx' needs onnxruntime: pip install 'tfprune\[onnx\]'"


@pytest.mark.usefixtures("without_onnxruntime")
def test_an_export_writes_nothing(export_model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=SAID):
        export(export_model, tmp_path / "out", ["keras", "onnx"])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_onnxruntime")
def test_a_run_trains_nothing(tiny_pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline = tiny_pipeline.model_copy(update={"formats": ("keras", "onnx")})
    with pytest.raises(UsageError, match=SAID):
        run(pipeline, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("without_onnxruntime")
def test_other_formats_need_nothing() -> None:
    registry.check_installed(["keras", "savedmodel", "tflite", "c-array"])


def test_the_names_of_formats_are_those_of_pipelines() -> None:
    assert get_args(FormatName) == tuple(registry.FORMATS)


def test_a_file_of_every_format_can_be_opened_by_its_name() -> None:
    for form in registry.FORMATS.values():
        assert registry.file_type(Path(f"model{form.suffix}")).library
