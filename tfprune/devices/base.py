"""What every device shares. Importing it loads neither Keras nor TensorFlow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from tfprune.errors import UsageError
from tfprune.vocabulary import DEVICE_TARGETS, FormatName, TargetName

if TYPE_CHECKING:
    import pandas as pd


PLANNED_FIGURES: dict[TargetName, str] = {
    "cycles": "cycles",
    "latency": "device_ms",
    "milliseconds": "device_ms",
    "sram": "sram_bytes",
    "flash": "flash_bytes",
}
"""The targets that removals can be planned for on a device, with the figures that they limit."""


@dataclass(frozen=True)
class Measurement:
    """What a device tells of one file.

    Example:
        ```python
        Measurement({"device_ms": 1.7, "cycles": 850_000})
        Measurement({}, refusal="its batch is open: export it with batch 1")
        ```

    Attributes:
        figures: values by the names of rows of `tfprune.figures` with the source `"device"`, or, of
            the device `command`, by the names that the command gives.
        refusal: why the file does not run there and what to do, in one line; empty where it runs.
        notes: what a reader must know beside the figures, one sentence each.
        layers: one row for each operator, with a column `layer` and columns of figures; None where
            the device cannot tell.
    """

    figures: Mapping[str, float]
    refusal: str = ""
    notes: tuple[str, ...] = ()
    layers: pd.DataFrame | None = None


class Device(BaseModel, ABC):
    """A place where models run, and what can be measured of it; a subclass is a kind of device.

    The fields of a subclass are its options: keys of `[[devices]]` in a pipeline, and
    `--device-option KEY=VALUE` on the command line. `tfprune.devices.find_device` imports the
    modules of all kinds, so a module imports what is heavy within its functions.

    Example:
        ```python
        device = find_device("cpu", threads=2)
        device.check()
        (found,) = device.measure([Path("net.tflite")])
        found.figures["device_ms"]
        ```

    Attributes:
        key: its key in `tfprune.vocabulary.DEVICES`, which says what it is.
        formats: the formats that it runs, the best first.
        told: the names of the figures that it tells; empty where the user's command names them.
        estimated: whether the figures come from a compiler or a model of the device, and not from a
            run: then every table says "estimated".
        planned: whether removals can be planned for it, since it tells the same of the same file.
        name: as the user wrote it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    key: ClassVar[str]
    formats: ClassVar[tuple[FormatName, ...]]
    told: ClassVar[tuple[str, ...]]
    estimated: ClassVar[bool] = False
    planned: ClassVar[bool] = False

    name: str

    @classmethod
    def takes(cls, name: str) -> bool:
        """Whether a name is one of this kind."""
        return name == cls.key

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(name for name in cls.model_fields if name != "name")

    @classmethod
    def required_options(cls) -> tuple[str, ...]:
        """The names of the options that have no default."""
        return tuple(name for name in cls.options() if cls.model_fields[name].is_required())

    @classmethod
    def one_of(cls) -> str:
        """A name of this kind."""
        return cls.key

    @classmethod
    def install(cls) -> Path:
        """Installs what pip cannot install; `tfprune devices install` calls it.

        Returns:
            The folder that holds it.

        Raises:
            UsageError: there is nothing, or something that it needs is missing.
            TfpruneError: it fails.
        """
        raise UsageError(
            f"device {cls.key} needs nothing that can be installed here: `tfprune devices` says "
            "what is missing"
        )

    @abstractmethod
    def check(self) -> None:
        """Checks that everything that it needs is installed, before any work.

        Raises:
            UsageError: something is missing; the message says how to install it.
        """

    @abstractmethod
    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Measures files, in turn where they are timed.

        Args:
            files: artifacts of any format; what each is tells its content.

        Returns:
            One for each file, in the same order. A file that the device cannot run has a refusal
            and no figures; that is no error.

        Raises:
            TfpruneError: the device itself fails.
        """

    def settings(self) -> dict[str, str]:
        """What the figures depend on beside the file, such as versions, the clock and threads."""
        return {}


def check_target(name: TargetName, device: Device | None) -> None:
    """Checks that removals can be planned for a target of a device, or with None of this machine.

    Args:
        name: of the target.
        device: where it is to be met.

    Raises:
        UsageError: the device cannot be planned for, or does not tell the figure; or the target is
            one of a device, and none is given.
    """
    if device is None:
        if name in DEVICE_TARGETS:
            raise UsageError(
                f"{name} is what a device tells: give the device, such as ethos-u55-128"
            )
        return
    if not device.planned:
        measured = "" if name in DEVICE_TARGETS else ", or leave it out to measure this computer"
        raise UsageError(
            f"device {device.name} cannot be planned for: give one whose compiler estimates "
            f"{name}, such as ethos-u55-128{measured}"
        )
    if name not in PLANNED_FIGURES:
        raise UsageError(
            f"{name} has no meaning for device {device.name}: give one of "
            f"{', '.join(PLANNED_FIGURES)}"
        )
