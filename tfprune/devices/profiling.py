"""Measures models that are exported for a target, and single operators: here, or by a compiler."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, get_args

import keras
import numpy as np
import pandas as pd
from ai_edge_litert.interpreter import Interpreter

from tfprune.devices.base import Device, Measurement
from tfprune.devices.cost import Times
from tfprune.devices.operators import Operator, operator_file
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.formats import FORMATS, Runtime, load
from tfprune.formats.source import Source, finished
from tfprune.measure import latency, raw_bytes
from tfprune.vocabulary import MeasuredFormat, TargetName

# Images that calibrate int8 ranges; no figure depends on them.
_IMAGES = 16
DEVICE_FORMATS: tuple[str, ...] = get_args(MeasuredFormat)
# Only the smallest models finish all rounds within the seconds.
_ROUNDS = 10_000
_SECONDS = 3.0
# NPUs compute channels in steps of so many.
STEP = 8


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


class CpuProfiler(Exports):
    """Exports models and measures them against one original; a context manager.

    Example:
        ```python
        with CpuProfiler(model) as profiler:
            profiler.time(slim)  # Measured("tflite", 1, 92_000, 31_000, 1.7, 0.8)
        ```

    Args:
        model: the original, with one input of a fixed shape and one output.
        format: one of `DEVICE_FORMATS`.
        threads: threads of the interpreter.
        progress: receives a short message after each measurement.
        target: what is planned for, for messages.

    Raises:
        UsageError: the format is not one of `DEVICE_FORMATS`, or the input's shape is open.
    """

    def __init__(
        self,
        model: keras.Model,
        format: str = "tflite",
        threads: int = 1,
        progress: Callable[[str], None] | None = None,
        target: TargetName = "latency",
    ) -> None:
        if format not in DEVICE_FORMATS:
            raise UsageError(
                f"format {format!r} cannot be measured on a device: give one of "
                f"{', '.join(DEVICE_FORMATS)}"
            )
        if threads < 1:
            raise UsageError(f"threads is {threads}: give at least 1")
        super().__init__(model, format, progress, target)
        self._threads = threads

    def __enter__(self) -> CpuProfiler:
        self._original = self._export(self._model)
        return self

    def times(self) -> OperatorTimes:
        """A timer of single operators in the same format, with the same number of threads."""
        return OperatorTimes(
            int8=self._format == "tflite-int8",
            threads=self._threads,
            progress=lambda count: self._progress(f"timed {count} operators"),
        )

    @cached_property
    def _alone(self) -> pd.Series:
        return self._timed({"original": self._load(self._original)}).iloc[0]

    def fastest(self) -> float:
        """The 10th percentile of the original's milliseconds, comparable to operator times."""
        return float(self._alone["p10_ms"])

    def untouched(self, *, timed: bool) -> Measured:
        """The figures of the original, also in the fields of the slim model.

        Args:
            timed: whether to measure the milliseconds too.
        """
        median = float(self._alone["median_ms"]) if timed else None
        return self._figures(self._original, median, median)

    def size(self, slim: keras.Model) -> Measured:
        """Measures the bytes of a slim model and of the original."""
        return self._figures(self._export(slim))

    def time(self, slim: keras.Model) -> Measured:
        """Measures the milliseconds, in turn, and the bytes of a slim model and of the original."""
        path = self._export(slim)
        rows = self._timed({"original": self._load(self._original), "slim": self._load(path)})
        medians = rows["median_ms"]
        measured = self._figures(path, float(medians["original"]), float(medians["slim"]))
        self._progress(
            f"measured {measured.slim_ms:.3g} ms, the original {measured.original_ms:.3g} ms"
        )
        return measured

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


_TURNS = 5
# Seconds and number of the calls of one operator in one turn.
_SECONDS_PER_TURN = 4e-4
_MOST_CALLS = 100
# Interpreters in memory at the same time, and the bytes of the weights in their files.
_TOGETHER = 64
_MEMORY = 1 << 26


class OperatorTimes:
    """Times single operators, each distinct operator once.

    Example:
        ```python
        times = OperatorTimes()
        times([Operator("dense", (1, 1), (1, 1), inputs=64, outputs=10)])  # [0.0009]
        ```

    The fastest call counts, since other programs on the machine only add time. All operators of a
    batch are called in turn. Every batch contains the same reference operator, which brings batches
    to one scale, because the speed of a machine drifts over minutes.

    Args:
        int8: whether the operators are int8; float32 otherwise.
        threads: threads of the interpreter.
        progress: receives the number of timed operators after each batch.
        clock: returns nanoseconds.
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
        missing = [operator for operator in dict.fromkeys(operators) if operator not in self._known]
        while missing:
            sizes = np.cumsum([4 * _weights(operator) for operator in missing[:_TOGETHER]])
            count = max(1, int(np.searchsorted(sizes, _MEMORY)))
            self._measure(missing[:count])
            missing = missing[count:]
        return np.array([self._known[operator] for operator in operators])

    def _measure(self, operators: list[Operator]) -> None:
        if self._reference is None:
            self._reference = max(operators, key=_macs)
        times = self._fastest([self._reference, *operators])
        # The first batch sets the scale.
        scale = self._known.get(self._reference, times[0]) / times[0]
        self._known.update(zip(operators, (scale * times[1:]).tolist(), strict=True))
        if self._progress:
            self._progress(len(self._known))

    def _fastest(self, operators: list[Operator]) -> np.ndarray:
        calls = [self._prepared(operator) for operator in operators]
        fastest = [self._timed(call) for call in calls]
        repeats = [min(_MOST_CALLS, int(_SECONDS_PER_TURN * 1e9 / ns) + 1) for ns in fastest]
        for _ in range(_TURNS):
            for index, call in enumerate(calls):
                nanoseconds = min(self._timed(call) for _ in range(repeats[index]))
                fastest[index] = min(fastest[index], nanoseconds)
        return np.array(fastest) / 1e6

    def _timed(self, call: Callable[[], None]) -> int:
        begin = self._clock()
        call()
        return max(1, self._clock() - begin)

    def _prepared(self, operator: Operator) -> Callable[[], None]:
        content = operator_file(operator, int8=self._int8)
        interpreter = Interpreter(model_content=content, num_threads=self._threads)
        interpreter.allocate_tensors()
        # The first call allocates memory that later calls reuse.
        interpreter.invoke()
        call: Callable[[], None] = interpreter.invoke
        return call


def _weights(operator: Operator) -> int:
    """The number of weights of an operator's kernel."""
    inputs = 1 if operator.kind == "depthwise" else operator.inputs
    return operator.window[0] * operator.window[1] * inputs * operator.outputs


def _macs(operator: Operator) -> int:
    """The multiply-accumulates of an operator."""
    return operator.target[0] * operator.target[1] * _weights(operator)


class CompilingProfiler(Exports):
    """Exports models and has a device estimate them against one original; a context manager.

    Example:
        ```python
        with CompilingProfiler(model, find_device("ethos-u55-128")) as profiler:
            profiler.measure(slim).slim["cycles"]
        ```

    Args:
        model: the original, with one input of a fixed shape and one output.
        device: a device whose figures do not change from call to call.
        progress: receives a short message after each measurement.
        target: what is planned for, for messages.

    Raises:
        UsageError: the device cannot be planned for, lacks what it needs, or the input's shape is
            open.
    """

    def __init__(
        self,
        model: keras.Model,
        device: Device,
        progress: Callable[[str], None] | None = None,
        target: TargetName = "latency",
    ) -> None:
        device.check()
        super().__init__(model, device.formats[0], progress, target)
        self._device = device
        self._costs: dict[str, OperatorFigures] = {}

    def __enter__(self) -> CompilingProfiler:
        try:
            self._original = self._estimated(self._model)
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def untouched(self) -> Measured:
        """The figures of the original, also in the fields of the slim model."""
        return self._against(self._original)

    def measure(self, slim: keras.Model) -> Measured:
        """The figures of a slim model and of the original."""
        return self._against(self._estimated(slim))

    def costs(self, figure: str) -> OperatorFigures:
        """A figure of single operators, each compiled alone and once."""
        if figure not in self._costs:
            self._costs[figure] = OperatorFigures(self._device, figure, Path(self._folder.name))
        return self._costs[figure]

    def _against(self, found: _Estimated) -> Measured:
        return Measured(
            self._format,
            1,
            self._original.bytes,
            found.bytes,
            device=self._device.name,
            original=self._original.measurement.figures,
            slim=found.measurement.figures,
            notes=found.measurement.notes,
        )

    def _estimated(self, model: keras.Model) -> _Estimated:
        path = self._export(model)
        (measurement,) = self._device.measure([path])
        if measurement.refusal:
            raise TfpruneError(
                f"device {self._device.name} cannot run model {model.name!r}: "
                + measurement.refusal.replace(str(path), "its file")
            )
        self._progress(f"estimated {measurement.figures} for {self._device.name}")
        return _Estimated(raw_bytes(path), measurement)


@dataclass(frozen=True)
class _Estimated:
    bytes: int
    measurement: Measurement


class OperatorFigures:
    """A figure of single int8 operators on a device, each distinct operator compiled once.

    Example:
        ```python
        cycles = OperatorFigures(find_device("ethos-u55-128"), "cycles", folder)
        cycles([Operator("dense", (1, 1), (1, 1), inputs=64, outputs=10)])  # [896.0]
        ```

    Above 8 channels, an operator costs as much as with the next multiple of 8: the device computes
    so many at once, and so a search keeps the channels that cost nothing.

    Args:
        device: the device.
        figure: the name of the figure.
        folder: where the files of operators are written.
    """

    def __init__(self, device: Device, figure: str, folder: Path) -> None:
        self._device, self._figure = device, figure
        self._file = folder / "operator.int8.tflite"
        self._known: dict[Operator, float] = {}

    def __call__(self, operators: Sequence[Operator]) -> np.ndarray:
        """The figure of each operator, float (len(operators),)."""
        return np.array([self._figure_of(_in_steps(operator)) for operator in operators])

    def _figure_of(self, operator: Operator) -> float:
        if operator not in self._known:
            self._file.write_bytes(operator_file(operator, int8=True, random=True))
            (measurement,) = self._device.measure([self._file])
            # What the CPU runs takes nothing of the NPU.
            self._known[operator] = measurement.figures.get(self._figure, 0.0)
        return self._known[operator]


def _in_steps(operator: Operator) -> Operator:
    inputs = _up(operator.inputs)
    if operator.kind == "depthwise":
        outputs = inputs * (operator.outputs // operator.inputs)
    else:
        outputs = _up(operator.outputs)
    return replace(operator, inputs=inputs, outputs=outputs)


def _up(channels: int) -> int:
    return channels if channels <= STEP else -(-channels // STEP) * STEP
