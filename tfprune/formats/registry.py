"""One row for each export format, and one for each kind of file that can be opened.

It needs no Keras: a row names the module of its format, which is imported at first use. To add a
format, write its module, and add its rows here and its name where the command line and pipelines
list them. The module has `write(source, path)`, which makes the file, and
`open_file(path, threads)`, which returns its `Runtime`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfprune.archives import ARCHIVES
from tfprune.errors import UsageError
from tfprune.files import MODEL_FILES, existing
from tfprune.formats.runtime import Memory, Runtime, check_numbers
from tfprune.vocabulary import QUANTIZER, ActivationTypeName

if TYPE_CHECKING:
    import keras

    from tfprune.formats.source import Source

TENSORFLOW, LITERT, ONNX_RUNTIME = "tensorflow", "litert", "onnxruntime"


@dataclasses.dataclass(frozen=True)
class FileType:
    """One kind of file that can be opened and run.

    Attributes:
        module: The module that opens it.
        suffixes: How names of such files end.
        library: What runs it. Files of one library may be loaded in one process and timed in turn.
        folder: What a folder of this kind is called; empty where it is always a file.
        content: The kind of file that it holds as text, which `module.read` gives; empty for none.
    """

    module: str
    suffixes: tuple[str, ...]
    library: str
    folder: str = ""
    content: str = ""

    def matches(self, path: Path) -> bool:
        """Whether a path is of this kind, by its name."""
        if path.is_dir():
            return bool(self.folder)
        return path.name.endswith(self.suffixes)

    def load_library(self) -> Any:
        """Imports the module, and with it what runs the file."""
        return importlib.import_module(self.module)

    def open(self, path: Path, threads: int = 1) -> Runtime:
        """Opens a file of this kind.

        Args:
            path: The file.
            threads: See `load`.
        """
        runtime: Runtime = self.load_library().open_file(path, threads)
        check_numbers(runtime.inputs, str(path))
        runtime.library = self.library
        return runtime


FILE_TYPES = {
    "keras": FileType("tfprune.formats.keras_file", MODEL_FILES, TENSORFLOW),
    "tflite": FileType("tfprune.formats.tflite", (".tflite",), LITERT),
    "c-array": FileType("tfprune.formats.c_array", (".cc",), LITERT, content="tflite"),
    "onnx": FileType("tfprune.formats.onnx_file", (".onnx",), ONNX_RUNTIME),
    "savedmodel": FileType(
        "tfprune.formats.savedmodel", ARCHIVES, TENSORFLOW, folder="SavedModel folder"
    ),
}


@dataclasses.dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
        suffix: What follows the name of the model.
        write: Writes the file.
        exact: Whether outputs must equal the Keras model's up to rounding.
        calibrated: Whether it needs representative data.
        takes_ranges: Whose ranges do in place of these data: those of a quantization-aware model
            with activations of this type.
        tolerance: Largest difference of an exact format, as a share of the outputs' range.
        companions: Suffixes of files that are written beside it.
        parameter_bytes: About how many bytes of the file one parameter of the model takes.
        packages: What it needs beyond tfprune's own requirements.
        extra: The extra of tfprune that installs these packages.
        memory: What a device needs to run the file; None where that is not known.
        timed: Whether the time that it takes here says something; that of TFLite Micro's kernels,
            compiled for this computer, does not.
    """

    suffix: str
    write: Callable[[Source, Path], None]
    exact: bool = True
    calibrated: bool = False
    takes_ranges: ActivationTypeName | None = None
    tolerance: float = 1e-3
    companions: tuple[str, ...] = ()
    parameter_bytes: int = 4
    packages: tuple[str, ...] = ()
    extra: str = ""
    memory: Callable[[Path], Memory] | None = None
    timed: bool = True


def _by(module: str, function: str, *options: str) -> Callable[..., Any]:
    """A function of a format's module, which is imported when it is called."""

    def call(*arguments: Any) -> Any:
        found = getattr(importlib.import_module(f"tfprune.formats.{module}"), function)
        return found(*arguments, *options)

    return call


def _tflite(kind: str) -> Callable[..., None]:
    return _by("tflite_convert", "write", kind)


# float16 keeps 11 bits of each weight, an error of 5e-4 that adds up through the layers.
_HALF = 1e-2
_MEMORY = _by("c_array", "device_memory")

FORMATS = {
    "keras": Format(".keras", _by("keras_file", "write")),
    "savedmodel": Format(".savedmodel.tar.gz", _by("savedmodel", "write")),
    "savedmodel-zst": Format(".savedmodel.tar.zst", _by("savedmodel", "write")),
    "tflite": Format(".tflite", _tflite("float32")),
    "tflite-float16": Format(
        ".float16.tflite", _tflite("float16"), tolerance=_HALF, parameter_bytes=2
    ),
    "tflite-dynamic": Format(".dynamic.tflite", _tflite("dynamic"), exact=False, parameter_bytes=1),
    "tflite-int8": Format(
        ".int8.tflite",
        _tflite("int8"),
        exact=False,
        calibrated=True,
        takes_ranges="int8",
        parameter_bytes=1,
    ),
    "tflite-int16x8": Format(
        ".int16x8.tflite",
        _tflite("int16x8"),
        exact=False,
        calibrated=True,
        takes_ranges="int16",
        parameter_bytes=1,
    ),
    "tflite-sparse": Format(".sparse.tflite", _tflite("sparse")),
    # Text: "0x12, " for each byte.
    "c-array": Format(
        "_int8.cc",
        _by("c_array", "write", "int8"),
        exact=False,
        calibrated=True,
        takes_ranges="int8",
        companions=("_int8.h",),
        parameter_bytes=6,
        memory=_MEMORY,
    ),
    "c-array-float": Format(
        "_float.cc",
        _by("c_array", "write", "float32"),
        companions=("_float.h",),
        parameter_bytes=24,
        memory=_MEMORY,
    ),
    "tflite-lut": Format(
        ".lut.tflite",
        _by("lut", "write"),
        exact=False,
        calibrated=True,
        takes_ranges="int8",
        parameter_bytes=1,
        packages=("tflite_micro",),
        extra="tflm",
        timed=False,
    ),
    "c-array-lut": Format(
        "_lut.cc",
        _by("lut", "write_array"),
        exact=False,
        calibrated=True,
        takes_ranges="int8",
        companions=("_lut.h",),
        parameter_bytes=6,
        packages=("tflite_micro",),
        extra="tflm",
        memory=_MEMORY,
        timed=False,
    ),
    # Whether it calibrates, its recipe tells.
    "tflite-recipe": Format(
        ".recipe.tflite",
        _tflite("recipe"),
        exact=False,
        parameter_bytes=1,
        packages=(QUANTIZER,),
        extra="quantizer",
    ),
    "onnx": Format(
        ".onnx",
        _by("onnx_file", "write"),
        packages=("tf2onnx", "onnx", "onnxruntime"),
        extra="onnx",
    ),
}


def has_batch(name: str) -> bool:
    """Whether the files of a format have the batch that is asked for: those that LiteRT runs do.

    Args:
        name: Of the format.
    """
    return FORMATS[name].suffix.endswith(
        tuple(
            suffix
            for each in FILE_TYPES.values()
            for suffix in each.suffixes
            if each.library == LITERT
        )
    )


def check_installed(formats: Iterable[str]) -> None:
    """Checks that the optional packages of some formats are there, before anything is made.

    Args:
        formats: Names of formats.

    Raises:
        UsageError: One is not.
    """
    for name in formats:
        form = FORMATS[name]
        missing = [each for each in form.packages if not importlib.util.find_spec(each)]
        if missing:
            raise UsageError(
                f"format {name!r} needs {', '.join(missing)}: pip install 'tfprune[{form.extra}]'"
            )


def file_type(path: Path) -> FileType:
    """What kind of file a path is, by its name.

    Args:
        path: A file or directory.

    Raises:
        UsageError: It is of no kind that can be run.
    """
    for each in FILE_TYPES.values():
        if each.matches(path):
            return each
    suffixes = [suffix for each in FILE_TYPES.values() for suffix in each.suffixes]
    folders = [f", or a {each.folder}" for each in FILE_TYPES.values() if each.folder]
    raise UsageError(
        f"{path} is not an artifact that tfprune can run: "
        f"give a {', '.join(suffixes[:-1])} or {suffixes[-1]} file{''.join(folders)}"
    )


def open_file(path: str | os.PathLike[str], threads: int = 1) -> Runtime:
    """Opens a file of any kind, with any number of inputs and outputs.

    Args:
        path: See `load`.
        threads: See `load`.

    Raises:
        UsageError: The path's kind is unknown, or what runs it is not installed.
        TfpruneError: The file is missing, damaged, or not what its name says.
    """
    path = existing(path)
    return file_type(path).open(path, threads)


def load(artifact: str | os.PathLike[str] | keras.Model, *, threads: int = 1) -> Runtime:
    """Loads an artifact, or wraps a model that is in memory.

    Example:
        ```python
        tfprune.formats.load("model.int8.tflite").predict(images).argmax(axis=1)
        ```

    Args:
        artifact: A `.keras` or legacy `.h5` file, a `.tflite` file or a C array (`.cc`) of one, an
            `.onnx` file, a SavedModel directory, a `.tar.gz` or `.tar.zst` that holds one
            SavedModel, or a built Keras model.
        threads: Threads of the single-image call of a TFLite or ONNX model. TensorFlow's thread
            pools belong to the process (`tf.config.threading`), so the other formats ignore it.

    Returns:
        The runtime. One made from an archive owns an unpacked copy that is removed with it.

    Raises:
        UsageError: The path's kind is unknown, `threads` is below 1, what runs ONNX is not
            installed, or the model takes strings.
        TfpruneError: The file is missing, damaged, or not what its name says.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}: give at least 1")
    if isinstance(artifact, str | os.PathLike):
        return open_file(artifact, threads)
    from tfprune.formats.keras_file import KerasRuntime

    runtime = KerasRuntime(artifact)
    runtime.library = TENSORFLOW
    return runtime
