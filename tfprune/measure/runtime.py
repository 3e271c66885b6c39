"""One way to run any artifact: `load(path)` gives a `Runtime`, whatever the format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tfprune.archives import ARCHIVES
from tfprune.errors import UsageError
from tfprune.files import MODEL_FILES, existing
from tfprune.measure.interface import Runtime

if TYPE_CHECKING:
    import keras

__all__ = ["Runtime", "load"]

_KERAS = "tfprune.measure.keras_runtime"
_SAVED_MODEL = "tfprune.measure.savedmodel_runtime"
_TFLITE = "tfprune.measure.tflite_runtime"
_ONNX = "tfprune.measure.onnx_runtime"
OF_TENSORFLOW = (_KERAS, _SAVED_MODEL)
"""The modules of those that run in one TensorFlow, and share its threads."""


def load(artifact: str | os.PathLike[str] | keras.Model, *, threads: int = 1) -> Runtime:
    """Loads an artifact, or wraps a model that is in memory.

    Args:
        artifact: A `.keras` or legacy `.h5` file, a `.tflite` file or a C array (`.cc`) of one, an
            `.onnx` file, a SavedModel directory, a `.tar.gz` or `.tar.zst` that holds one
            SavedModel, or a built Keras model. It has one input and one output.
        threads: Threads of the single-image call of a TFLite or ONNX model. TensorFlow's thread
            pools belong to the process (`tf.config.threading`), so the other formats ignore it.

    Returns:
        The runtime. One made from an archive owns an unpacked copy that goes away with it.

    Raises:
        UsageError: The path's kind is unknown, `threads` is below 1, or what runs ONNX is not
            installed.
        TfpruneError: The file is missing, damaged, or not what its name says.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}: give at least 1")
    # Each runtime imports its own library: a .tflite file is measured without TensorFlow.
    if not isinstance(artifact, str | os.PathLike):
        from tfprune.measure.keras_runtime import KerasRuntime

        return KerasRuntime(artifact)
    path = existing(artifact)
    module = runtime_module(path)
    if module == _SAVED_MODEL:
        from tfprune.measure.savedmodel_runtime import SavedModelRuntime

        return SavedModelRuntime(path)
    if module == _TFLITE:
        from tfprune.measure.tflite_runtime import TFLiteRuntime

        return TFLiteRuntime(path, threads=threads)
    if module == _ONNX:
        from tfprune.measure.onnx_runtime import OnnxRuntime

        return OnnxRuntime(path, threads=threads)
    from tfprune.measure.keras_runtime import KerasRuntime
    from tfprune.model import loading

    return KerasRuntime(loading.load(path), name=path.name)


def runtime_module(path: Path) -> str:
    """The module that runs a file of this name.

    Args:
        path: A file or directory.

    Raises:
        UsageError: There is none.
    """
    if path.is_dir() or path.name.endswith(ARCHIVES):
        return _SAVED_MODEL
    if path.suffix in (".tflite", ".cc"):
        return _TFLITE
    if path.suffix == ".onnx":
        return _ONNX
    if path.suffix in MODEL_FILES:
        return _KERAS
    raise UsageError(
        f"{path} is no artifact tfprune can run: "
        "give a .keras, .h5, .tflite, .cc, .onnx, .tar.gz or .tar.zst file, or a SavedModel folder"
    )
