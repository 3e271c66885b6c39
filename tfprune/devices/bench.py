"""Whole models as artifacts on this machine: their bytes, and their time beside the original's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from tfprune.devices.timing import OperatorTimes
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.formats import FORMATS, Runtime, load
from tfprune.formats.source import Source, finished
from tfprune.measure import latency, raw_bytes

DEVICE_FORMATS = ("tflite", "tflite-int8")
# Seconds decide for all but the smallest models.
_ROUNDS = 10_000
_SECONDS = 3.0
# What int8 calibrates its ranges with; neither a file's size nor its time depends on them.
_IMAGES = 16


@dataclass(frozen=True)
class Measured:
    """What was measured of a slim model and, in turn with it, of the original.

    Attributes:
        format: `"tflite"` or `"tflite-int8"`.
        threads: threads of the interpreter.
        original_bytes: the artifact of the original.
        slim_bytes: that of the slim model.
        original_ms: median milliseconds of one image, or None where nothing was timed.
        slim_ms: the same of the slim model, alternating with the original.
    """

    format: str
    threads: int
    original_bytes: int
    slim_bytes: int
    original_ms: float | None = None
    slim_ms: float | None = None


class Bench:
    """Exports models and measures them against one original; a context manager.

    Args:
        model: the original, with one input of a fixed shape and one output.
        format: one of `DEVICE_FORMATS`.
        threads: threads of the interpreter.
        progress: told in a few words what has been done.

    Raises:
        UsageError: the format is none of them, or the input's shape is open.
    """

    def __init__(
        self,
        model: keras.Model,
        format: str = "tflite",
        threads: int = 1,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        if format not in DEVICE_FORMATS:
            raise UsageError(
                f"format {format!r} is none that a device runs: give one of "
                f"{', '.join(DEVICE_FORMATS)}"
            )
        if threads < 1:
            raise UsageError(f"threads is {threads}: give at least 1")
        shape = [size for size in load(model).input_shape if size is not None]
        if len(shape) < len(model.inputs[0].shape) - 1:
            raise UsageError(
                f"model {model.name!r} takes images of any size, so it has no latency and no "
                "calibration: give its Input a fixed shape"
            )
        self._format, self._threads = format, threads
        self._progress = progress or (lambda _: None)
        rng = np.random.default_rng(0)
        self._images = rng.uniform(0, 255, (_IMAGES, *shape)).astype(np.float32)
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="tfprune-bench-")
        self._written = 0

    def __enter__(self) -> Bench:
        self._original = self._export(self._model)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def times(self) -> OperatorTimes:
        """Times single operators in the same format, on as many threads."""
        return OperatorTimes(
            int8=self._format == "tflite-int8",
            threads=self._threads,
            progress=lambda count: self._progress(f"timed {count} operators"),
        )

    @cached_property
    def _alone(self) -> pd.Series:
        return self._timed({"original": self._load(self._original)}).iloc[0]

    def fastest(self) -> float:
        """Milliseconds of the original when little disturbs it, as operators are timed."""
        return float(self._alone["p10_ms"])

    def untouched(self, *, timed: bool) -> Measured:
        """The figures of the original, in place of a slim model's too."""
        median = float(self._alone["median_ms"]) if timed else None
        return self._figures(self._original, median, median)

    def size(self, slim: keras.Model) -> Measured:
        """Measures the bytes of a model and of the original."""
        return self._figures(self._export(slim))

    def time(self, slim: keras.Model) -> Measured:
        """Measures the time of a model in turn with the original's, and the bytes of both."""
        path = self._export(slim)
        rows = self._timed({"original": self._load(self._original), "slim": self._load(path)})
        medians = rows["median_ms"]
        found = self._figures(path, float(medians["original"]), float(medians["slim"]))
        self._progress(f"measured {found.slim_ms:.3g} ms, the original {found.original_ms:.3g} ms")
        return found

    def _figures(
        self, slim: Path, original_ms: float | None = None, slim_ms: float | None = None
    ) -> Measured:
        sizes = raw_bytes(self._original), raw_bytes(slim)
        return Measured(self._format, self._threads, *sizes, original_ms, slim_ms)

    def _timed(self, runtimes: dict[str, Runtime]) -> pd.DataFrame:
        image = self._images[0]
        rows = latency(runtimes, image, rounds=_ROUNDS, warmup=20, seconds_budget=_SECONDS)
        return rows.set_index("runtime")

    def _load(self, path: Path) -> Runtime:
        return load(path, threads=self._threads)

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
        # Layers without an export path raise anything.
        except Exception as error:
            raise TfpruneError(
                f"model '{model.name}' cannot be exported as {self._format} "
                f"({one_line(error)}): replace what the format cannot express"
            ) from error
        return path
