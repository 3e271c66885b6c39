"""This computer's processor: milliseconds and memory of every format that runs here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tfprune.devices.base import Device, Measurement
from tfprune.errors import TfpruneError
from tfprune.formats.registry import FORMATS
from tfprune.vocabulary import FORMATS as NAMES
from tfprune.vocabulary import FormatName

if TYPE_CHECKING:
    from tfprune.formats.runtime import Tensor


class Cpu(Device):
    """This computer; TFLite files run by LiteRT, the others by what runs them.

    Files are timed in turn, each library in a process of its own, so that figures of one call can
    be compared.
    """

    key: ClassVar[str] = "cpu"
    formats: ClassVar[tuple[FormatName, ...]] = (
        "tflite",
        *(name for name in NAMES if name != "tflite" and FORMATS[name].timed),
    )
    told: ClassVar[tuple[str, ...]] = ("device_ms", "memory_bytes")

    threads: Annotated[int, Field(ge=1, le=1024, description="of one example")] = 1
    rounds: Annotated[int, Field(ge=1, le=1_000_000, description="timed calls of each file")] = 200

    def check(self) -> None:
        """Nothing is missing: what runs files is among tfprune's own requirements."""

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Runs each file once in a process of its own, then times those that run, in turn."""
        from tfprune.formats import load
        from tfprune.measure import first_run, time_files

        found: dict[Path, Measurement] = {}
        # Files are timed together where one example fits all of them.
        groups: dict[Any, tuple[Any, list[Path]]] = {}
        for path in dict.fromkeys(files):
            try:
                run = first_run(path, threads=self.threads)
            except TfpruneError as error:
                found[path] = Measurement({}, refusal=str(error))
                continue
            found[path] = Measurement({"memory_bytes": run.memory_bytes})
            inputs = load(path).inputs
            _, together = groups.setdefault(_fitting(inputs), (_example(inputs), []))
            together.append(path)
        for example, paths in groups.values():
            times = time_files(
                {str(path): path for path in paths},
                example,
                threads=self.threads,
                rounds=self.rounds,
            )
            for path, milliseconds in zip(paths, times["median_ms"], strict=True):
                found[path] = Measurement({"device_ms": float(milliseconds), **found[path].figures})
        return [found[path] for path in files]

    def settings(self) -> dict[str, str]:
        """Threads and calls."""
        return {"threads": str(self.threads), "rounds": str(self.rounds)}


def _fitting(inputs: Sequence[Tensor]) -> tuple[Any, ...]:
    """What files have in common that take the same example."""
    if len(inputs) == 1:
        return inputs[0].shape[1:]
    return tuple(sorted((each.name, each.shape[1:]) for each in inputs))


def _example(inputs: Sequence[Tensor]) -> Any:
    """Zeros, which are row numbers of any table; how long a net takes depends on no value."""
    from tfprune.formats.runtime import zero_feeds

    values = {name: x[0] for name, x in zero_feeds(inputs, 1).items()}
    return values if len(values) > 1 else next(iter(values.values()))
