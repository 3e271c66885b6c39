"""What plans ask of a profiler: the figures of whole models, and the costs of operators."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from tfprune.devices.cost import Times
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.formats import FORMATS, load
from tfprune.formats.source import Source, finished
from tfprune.vocabulary import TargetName

# Images that calibrate int8 ranges; no figure depends on them.
_IMAGES = 16


@dataclass(frozen=True)
class Measured:
    """The measured figures of a slim model and of its original.

    Attributes:
        format: `"tflite"` or `"tflite-int8"`.
        threads: threads of the interpreter.
        original_bytes: bytes of the original's artifact.
        slim_bytes: bytes of the slim model's artifact.
        original_ms: median milliseconds of one image; None if it was not timed.
        slim_ms: the same for the slim model, timed in turn with the original.
        device: the device whose compiler estimated the figures; empty where this machine ran the
            files.
        original: the figures that the device tells of the original, by the names of
            `tfprune.figures`.
        slim: the same of the slim model.
        notes: what belongs to the figures of the slim model, one sentence each.
    """

    format: str
    threads: int
    original_bytes: int
    slim_bytes: int
    original_ms: float | None = None
    slim_ms: float | None = None
    device: str = ""
    original: Mapping[str, float] = field(default_factory=dict)
    slim: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Profiler(Protocol):
    """Measures whole models on this machine, and times single operators."""

    def times(self) -> Times:
        """Milliseconds of operators that are timed alone."""

    def fastest(self) -> float:
        """Milliseconds of the original, comparable to operator times."""

    def untouched(self, *, timed: bool) -> Measured:
        """The figures of the original, also in the fields of the slim model."""

    def size(self, slim: keras.Model) -> Measured:
        """The bytes of a slim model and of the original."""

    def time(self, slim: keras.Model) -> Measured:
        """The milliseconds of a slim model and of the original, and their bytes."""


class Exports:
    """A folder of models that are exported to be measured against one original.

    Args:
        model: the original, with one input of a fixed shape and one output.
        format: the format of the files.
        progress: receives a short message after each measurement.
        target: what is measured, for messages.

    Raises:
        UsageError: the input's shape is open.
    """

    def __init__(
        self,
        model: keras.Model,
        format: str,
        progress: Callable[[str], None] | None = None,
        target: TargetName = "latency",
    ) -> None:
        shape = [size for size in load(model).input_shape if size is not None]
        if len(shape) < len(model.inputs[0].shape) - 1:
            raise UsageError(
                f"model {model.name!r} takes images of any size, so the target {target} cannot "
                "be measured: give its Input a fixed shape"
            )
        self._format = format
        self._progress = progress or (lambda _: None)
        rng = np.random.default_rng(0)
        self._images = rng.uniform(0, 255, (_IMAGES, *shape)).astype(np.float32)
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="tfprune-profiler-")
        self._written = 0

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _export(self, model: keras.Model) -> Path:
        self._written += 1
        form = FORMATS[self._format]
        scratch = Path(self._folder.name, f"{self._written}")
        scratch.mkdir()
        path = scratch / f"model{form.suffix}"
        try:
            form.write(Source(finished(model), "model", scratch, self._images), path)
        except TfpruneError:
            raise
        # A layer that cannot be exported may raise anything.
        except Exception as error:
            raise TfpruneError(
                f"model '{model.name}' cannot be exported as {self._format} "
                f"({one_line(error)}): replace what the format cannot express"
            ) from error
        return path
