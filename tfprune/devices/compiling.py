"""Models and operators as the compiler of a device estimates them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from tfprune.devices.base import Device, Measurement
from tfprune.devices.operators import Operator, operator_file
from tfprune.devices.profiling import Exports, Measured
from tfprune.errors import TfpruneError
from tfprune.measure import raw_bytes
from tfprune.vocabulary import TargetName

# NPUs compute channels in steps of so many.
STEP = 8


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
            original=self._original.told.figures,
            slim=found.told.figures,
            notes=found.told.notes,
        )

    def _estimated(self, model: keras.Model) -> _Estimated:
        path = self._export(model)
        (told,) = self._device.measure([path])
        if told.refusal:
            raise TfpruneError(
                f"device {self._device.name} cannot run model {model.name!r}: "
                + told.refusal.replace(str(path), "its file")
            )
        self._progress(f"estimated {told.figures} for {self._device.name}")
        return _Estimated(raw_bytes(path), told)


@dataclass(frozen=True)
class _Estimated:
    bytes: int
    told: Measurement


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
            (told,) = self._device.measure([self._file])
            # What the CPU runs takes nothing of the NPU.
            self._known[operator] = told.figures.get(self._figure, 0.0)
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
