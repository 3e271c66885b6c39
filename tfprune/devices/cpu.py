"""Whole models as artifacts on this machine: their bytes, and their time beside the original's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from ai_edge_litert.interpreter import Interpreter

from tfprune.devices.operators import Operator, single
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


class Profiler:
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
        self._folder = tempfile.TemporaryDirectory(prefix="tfprune-profiler-")
        self._written = 0

    def __enter__(self) -> Profiler:
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


_TURNS = 5
# Calls of one operator in a row in one round; the rest of the work is spread over the rounds.
_SECONDS_A_TURN = 4e-4
_MOST_CALLS = 100
# Interpreters in memory at once, and what the weights in their files may take, in bytes.
_TOGETHER = 64
_MEMORY = 1 << 26


class OperatorTimes:
    """Times operators alone, each distinct one once.

    The fastest call counts: what else runs on the machine only ever adds time. All operators of a
    batch are called in turn, with one reference operator among them in every batch, by which
    batches of different minutes are brought to one scale: a machine's speed drifts.

    Args:
        int8: int8 operators; float32 if not.
        threads: threads of the interpreter.
        progress: told how many operators have been timed, after each batch.
        clock: gives nanoseconds.
    """

    def __init__(
        self,
        *,
        int8: bool = False,
        threads: int = 1,
        progress: Callable[[int], None] | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._int8, self._threads, self._clock = int8, threads, clock
        self._progress = progress
        self._known: dict[Operator, float] = {}
        self._reference: Operator | None = None

    def __call__(self, operators: Sequence[Operator]) -> np.ndarray:
        """Milliseconds of one call of each operator, float (len(operators),)."""
        missing = [each for each in dict.fromkeys(operators) if each not in self._known]
        while missing:
            sizes = np.cumsum([4 * _weights(each) for each in missing[:_TOGETHER]])
            count = max(1, int(np.searchsorted(sizes, _MEMORY)))
            self._measure(missing[:count])
            missing = missing[count:]
        return np.array([self._known[each] for each in operators])

    def _measure(self, operators: list[Operator]) -> None:
        if self._reference is None:
            self._reference = max(operators, key=_work)
        times = self._fastest([self._reference, *operators])
        # The first batch sets the scale.
        scale = self._known.get(self._reference, times[0]) / times[0]
        self._known.update(zip(operators, (scale * times[1:]).tolist(), strict=True))
        if self._progress:
            self._progress(len(self._known))

    def _fastest(self, operators: list[Operator]) -> np.ndarray:
        calls = [self._prepared(each) for each in operators]
        fastest = [self._timed(call) for call in calls]
        often = [min(_MOST_CALLS, int(_SECONDS_A_TURN * 1e9 / ns) + 1) for ns in fastest]
        for _ in range(_TURNS):
            for index, call in enumerate(calls):
                took = min(self._timed(call) for _ in range(often[index]))
                fastest[index] = min(fastest[index], took)
        return np.array(fastest) / 1e6

    def _timed(self, call: Callable[[], None]) -> int:
        begin = self._clock()
        call()
        return max(1, self._clock() - begin)

    def _prepared(self, operator: Operator) -> Callable[[], None]:
        content = single(operator, int8=self._int8)
        interpreter = Interpreter(model_content=content, num_threads=self._threads)
        interpreter.allocate_tensors()
        # The first call finds memory that later ones reuse.
        interpreter.invoke()
        call: Callable[[], None] = interpreter.invoke
        return call


def _weights(operator: Operator) -> int:
    """How many weights its kernel has."""
    read = 1 if operator.kind == "depthwise" else operator.inputs
    return operator.window[0] * operator.window[1] * read * operator.outputs


def _work(operator: Operator) -> int:
    """How many multiply-accumulates an operator does."""
    return operator.target[0] * operator.target[1] * _weights(operator)
