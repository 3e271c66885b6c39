"""The formats that `export` knows: one small function each, in a registry."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from tfprune.artifacts.archive import pack
from tfprune.artifacts.c_array import write_c_array
from tfprune.artifacts.keras_file import write_keras
from tfprune.artifacts.onnx_file import write_onnx
from tfprune.artifacts.recurrent import has_loops, unrolled
from tfprune.artifacts.savedmodel import holds_loop, layers_in, tensor_names, write_saved_model
from tfprune.artifacts.tflite import INTEGER, Ends, Feeds, Kind, MissingOperatorError, convert
from tfprune.errors import TfpruneError


@dataclasses.dataclass(frozen=True)
class Source:
    """What a format is written from.

    Attributes:
        model: A finished model.
        name: Stem of the files' names.
        scratch: A directory that goes away after the export.
        representative_data: Training images, shape `(n, h, w, c)`, those of several inputs by
            their names in the exported files, or None.
        io: Whether integer formats take and give integers, or float32.
    """

    model: keras.Model
    name: str
    scratch: Path
    representative_data: np.ndarray | Feeds | None
    io: Ends = "int8"

    @functools.cached_property
    def saved_model(self) -> Path:
        """A SavedModel of the model, exported once for all formats that start from it."""
        directory = self.scratch / "saved_model"
        write_saved_model(self.model, directory)
        return directory

    @functools.cached_property
    def keras_file(self) -> Path:
        """The model's `.keras` export, which also names the model by its hash."""
        path = self.scratch / "model.keras"
        write_keras(self.model, path)
        return path

    def tflite(self, kind: Kind) -> bytes:
        """The model as TFLite, converted once for all formats that hold it.

        A recurrent model takes one example at a time: over an open batch TFLite has no loop.
        """
        path = self.scratch / f"{kind}.tflite"
        if not path.exists():
            batch = self.model.inputs[0].shape[0] or 1
            saved_model = self.saved_model
            if has_loops(self.model):
                saved_model = self._unrolled if kind in INTEGER else self._looping
            if kind in INTEGER and holds_loop(saved_model):
                raise TfpruneError(
                    f"model '{self.model.name}' computes in a loop, and TFLite cannot calibrate "
                    "one: export tflite or tflite-dynamic, or write the loop out"
                )
            try:
                content = convert(saved_model, kind, self._feeds, self.io, batch)
            except MissingOperatorError as error:
                raise TfpruneError(
                    f"TFLite has no builtin operator for {', '.join(error.operators)}"
                    f"{layers_in(self.model, error.places)}: "
                    "leave TFLite out, or replace the layers that use it"
                ) from error
            path.write_bytes(content)
        return path.read_bytes()

    @functools.cached_property
    def _looping(self) -> Path:
        directory = self.scratch / "looping"
        write_saved_model(self.model, directory, batch=1)
        return directory

    @functools.cached_property
    def _unrolled(self) -> Path:
        directory = self.scratch / "unrolled"
        write_saved_model(unrolled(self.model), directory, batch=1)
        return directory

    @property
    def _feeds(self) -> Feeds | None:
        data = self.representative_data
        if data is None:
            return None
        names = tensor_names(self.model)[0]
        by_name = data if isinstance(data, dict) else {names[0]: data}
        return {
            name: by_name[name].astype(keras.backend.standardize_dtype(x.dtype))
            for name, x in zip(names, self.model.inputs, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class Format:
    """How to write one format.

    Attributes:
        suffix: What follows the name of the model.
        write: Writes the file.
        exact: Whether outputs must equal the Keras model's up to rounding.
        calibrated: Whether it needs representative data.
        tolerance: Largest difference of an exact format, as a share of the outputs' range.
        companions: Suffixes of files that are written beside it.
    """

    suffix: str
    write: Callable[[Source, Path], None]
    exact: bool = True
    calibrated: bool = False
    tolerance: float = 1e-3
    companions: tuple[str, ...] = ()


def _keras(source: Source, path: Path) -> None:
    path.write_bytes(source.keras_file.read_bytes())


def _savedmodel(source: Source, path: Path) -> None:
    pack(source.saved_model, path, root=source.name)


def _tflite(kind: Kind) -> Callable[[Source, Path], None]:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(source.tflite(kind))

    return write


def _tflite_sparse(source: Source, path: Path) -> None:
    sparse, plain = source.tflite("sparse"), source.tflite("float32")
    if len(sparse) >= len(plain):
        raise TfpruneError(
            f"tflite-sparse would take {len(sparse):,} bytes and plain tflite takes "
            f"{len(plain):,}: prune more weights, or export tflite"
        )
    path.write_bytes(sparse)


def _c_array(kind: Kind) -> Callable[[Source, Path], None]:
    def write(source: Source, path: Path) -> None:
        write_c_array(source.tflite(kind), path)

    return write


def _onnx(source: Source, path: Path) -> None:
    write_onnx(source.model, path)


# float16 keeps 11 bits of each weight, an error of 5e-4 that adds up through the layers.
_HALF = 1e-2

FORMATS = {
    "keras": Format(".keras", _keras),
    "savedmodel": Format(".savedmodel.tar.gz", _savedmodel),
    "savedmodel-zst": Format(".savedmodel.tar.zst", _savedmodel),
    "tflite": Format(".tflite", _tflite("float32")),
    "tflite-float16": Format(".float16.tflite", _tflite("float16"), tolerance=_HALF),
    "tflite-dynamic": Format(".dynamic.tflite", _tflite("dynamic"), exact=False),
    "tflite-int8": Format(".int8.tflite", _tflite("int8"), exact=False, calibrated=True),
    "tflite-int16x8": Format(".int16x8.tflite", _tflite("int16x8"), exact=False, calibrated=True),
    "tflite-sparse": Format(".sparse.tflite", _tflite_sparse),
    "c-array": Format(
        "_int8.cc", _c_array("int8"), exact=False, calibrated=True, companions=("_int8.h",)
    ),
    "c-array-float": Format("_float.cc", _c_array("float32"), companions=("_float.h",)),
    "onnx": Format(".onnx", _onnx),
}
