from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.artifacts.small import names, one_line, tiny
from tfprune.artifacts import export
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import FORMATS, Format, load
from tfprune.formats.source import Source


def write_other(source: Source, path: Path) -> None:
    """A broken format: the file holds a model with other weights."""
    other = keras.models.clone_model(source.model)
    other.set_weights([-w for w in source.model.get_weights()])
    other.save(path)


def interrupt(source: Source, path: Path) -> None:
    path.write_bytes(b"half")
    raise KeyboardInterrupt


def disk_full(source: Source, path: Path) -> None:
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def crash(source: Source, path: Path) -> None:
    path.write_bytes(b"half")
    raise AttributeError("a layer without\nan export path")


@pytest.mark.reliability("exports that cannot be", "refused")
@pytest.mark.parametrize(
    ("write", "expected", "says"),
    [
        (write_other, TfpruneError, "does not agree"),
        (interrupt, KeyboardInterrupt, ""),
        (disk_full, TfpruneError, "No space left"),
        (crash, TfpruneError, "a layer without"),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    model: keras.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Source, Path], None],
    expected: type[BaseException],
    says: str,
) -> None:
    monkeypatch.setitem(FORMATS, "broken", Format(".broken.keras", write))
    (tmp_path / "model.keras").write_bytes(b"an older export")
    with pytest.raises(expected) as error:
        export(model, tmp_path, ["keras", "broken"])
    assert says in one_line(error)
    assert names(tmp_path) == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == b"an older export"
    export(model, tmp_path, ["keras"])
    assert load(tmp_path / "model.keras").format == "keras"


def test_the_next_export_removes_what_a_killed_one_left(model: keras.Model, tmp_path: Path) -> None:
    left = tmp_path / ".partial-killed"
    left.mkdir()
    (left / ".lock").touch()
    (left / "model.keras").write_bytes(b"half")
    export(model, tmp_path, ["keras"])
    assert names(tmp_path) == ["model.keras"]


def test_a_file_that_cannot_be_loaded_does_not_count(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(b"not a model")

    monkeypatch.setitem(FORMATS, "tflite", Format(".tflite", write))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite"])
    assert "not a TFLite model" in one_line(error)
    assert ".partial" not in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.reliability("exports that cannot be", "refused")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    model = tiny(keras.layers.Conv2D(2, 3))
    model.set_weights([w * 0 + bad for w in model.get_weights()])
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["keras"])
    assert "NaN or infinite" in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.reliability("exports that cannot be", "refused")
def test_a_clearly_broken_int8_file_is_refused(
    model: keras.Model, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(source: Source, path: Path) -> None:
        write_other(source, path)

    monkeypatch.setitem(FORMATS, "tflite-int8", Format(".int8.keras", write, exact=False))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite-int8"], representative_data=images)
    assert "check the representative data" in one_line(error)
    assert names(tmp_path) == []


def test_an_untrained_model_is_not_called_broken(tmp_path: Path) -> None:
    """Its logits nearly tie, so that int8 reorders many of them: that is no fault of the file."""
    keras.utils.set_random_seed(1)
    model = tiny(keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization(), keras.layers.ReLU())
    data = np.random.default_rng(0).uniform(0, 255, (50, 4, 4, 1))
    assert len(export(model, tmp_path, ["tflite-int8"], representative_data=data)) == 1


@pytest.mark.reliability("exports that cannot be", "refused")
def test_an_operation_without_builtin_operator_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.ops.erfinv(inputs / 300)))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["keras", "tflite"])
    assert "no builtin operator for Erfinv" in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.reliability("exports that cannot be", "refused")
def test_a_directory_that_cannot_be_made_is_one_line(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path / "file" / "models", ["keras"])
    assert "cannot be written (Not a directory)" in one_line(error)


@pytest.mark.reliability("exports that cannot be", "refused")
@pytest.mark.parametrize(
    ("formats", "says"),
    [
        (["tflit"], "did you mean 'tflite'?"),
        (["tflite-int4"], "did you mean 'tflite-int8'?"),
        (["coreml"], "choose one of keras, savedmodel, savedmodel-zst, tflite"),
        (["tflite-sparse-int8"], "is unknown"),
        ([], "no format"),
        (["tflite-int8"], "needs representative_data"),
    ],
)
def test_a_wrong_format_is_one_line(
    model: keras.Model, tmp_path: Path, formats: list[str], says: str
) -> None:
    with pytest.raises(UsageError) as error:
        export(model, tmp_path / "new", formats)
    assert says in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.reliability("exports that cannot be", "refused")
@pytest.mark.parametrize(
    "data",
    [np.zeros((0, 8, 8, 3)), np.zeros((4, 8, 9, 3)), np.full((4, 8, 8, 3), np.nan), ["a"]],
)
def test_data_that_does_not_fit_is_one_line(
    model: keras.Model, tmp_path: Path, data: np.ndarray
) -> None:
    with pytest.raises(UsageError) as error:
        export(model, tmp_path / "new", representative_data=data)
    one_line(error)
    assert names(tmp_path) == []


@pytest.mark.reliability("exports that cannot be", "refused")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((name, "without directories") for name in ("", "../model", "a/b", "..", "a:b", "a\0b")),
        ("a\tb", "that can be printed"),
        ("\ud800", "that can be printed"),
        ("模" * 70, "name has 210 bytes"),
    ],
)
def test_a_name_that_is_no_file_name_is_one_line(
    model: keras.Model, tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(UsageError) as error:
        export(model, tmp_path, ["keras"], name=name)
    assert says in one_line(error)


def test_an_operator_that_no_format_has_is_named_with_its_layer(tmp_path: Path) -> None:
    class Odd(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.erfinv(x / 300)

    model = tiny(Odd(name="odd_one"))
    formats = ["tflite", *(["onnx"] if importlib.util.find_spec("tf2onnx") else [])]
    for form in formats:
        with pytest.raises(TfpruneError) as error:
            export(model, tmp_path, [form])
        assert "has no" in one_line(error)
        assert "operator for Erfinv in layer 'odd_one'" in one_line(error)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x: object) -> object:
        return self.dense(x)


@pytest.mark.reliability("exports that cannot be", "refused")
@pytest.mark.parametrize("called", [True, False])
def test_a_subclassed_or_uncalled_model_is_one_line(tmp_path: Path, called: bool) -> None:
    model = Subclassed()
    if called:
        model(np.zeros((1, 3), np.float32))
    for wrong in [model, keras.Sequential([keras.layers.Dense(2)])]:
        with pytest.raises(UsageError) as error:
            export(wrong, tmp_path, ["keras"])
        assert "Sequential or Functional" in one_line(error)
    assert names(tmp_path) == []
