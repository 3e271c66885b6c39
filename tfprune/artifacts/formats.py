"""The formats that `export` knows: one small function each, in a registry."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from tfprune.artifacts.archive import pack
from tfprune.artifacts.keras_file import write_keras
from tfprune.artifacts.savedmodel import write_saved_model
from tfprune.artifacts.tflite import to_float, to_int8


@dataclasses.dataclass(frozen=True)
class Source:
    """What a format is written from.

    Attributes:
        model: A finished model.
        name: Stem of the files' names.
        scratch: A directory that goes away after the export.
        representative_data: Float32 training images, shape `(n, h, w, c)`, or None.
    """

    model: keras.Model
    name: str
    scratch: Path
    representative_data: np.ndarray | None

    @functools.cached_property
    def saved_model(self) -> Path:
        """A SavedModel of the model, exported once for all formats that start from it."""
        directory = self.scratch / "saved_model"
        write_saved_model(self.model, directory)
        return directory


@dataclasses.dataclass(frozen=True)
class Format:
    """How to write one format.

    Attributes:
        suffix: What follows the name of the model.
        write: Writes the file.
        exact: Whether outputs must equal the Keras model's up to rounding.
        calibrated: Whether it needs representative data.
    """

    suffix: str
    write: Callable[[Source, Path], None]
    exact: bool = True
    calibrated: bool = False


def _keras(source: Source, path: Path) -> None:
    write_keras(source.model, path)


def _savedmodel(source: Source, path: Path) -> None:
    pack(source.saved_model, path, root=source.name)


def _tflite(source: Source, path: Path) -> None:
    path.write_bytes(to_float(source.saved_model))


def _tflite_int8(source: Source, path: Path) -> None:
    assert source.representative_data is not None  # export asks for it
    path.write_bytes(to_int8(source.saved_model, source.representative_data))


FORMATS = {
    "keras": Format(".keras", _keras),
    "savedmodel": Format(".savedmodel.tar.gz", _savedmodel),
    "tflite": Format(".tflite", _tflite),
    "tflite-int8": Format(".int8.tflite", _tflite_int8, exact=False, calibrated=True),
}
