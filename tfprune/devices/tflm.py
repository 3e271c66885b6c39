"""TFLite Micro's own interpreter: what a microcontroller would need, and that the file runs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfprune.devices.answers import feed, largest, litert
from tfprune.devices.base import Device, Measurement
from tfprune.devices.micro import flatbuffer, printed
from tfprune.errors import TfpruneError, check_package, one_line
from tfprune.vocabulary import FormatName

_TIMEOUT_SECONDS = 300.0
_EXAMPLES = 4
# From here on outputs of floats are not the same computation in another order.
_SAME = 1e-3
_TOTAL = re.compile(r"Arena allocation total (\d+)")
_NOT_FOUND = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


class Tflm(Device):
    """TFLite Micro, compiled for this computer, in a process of its own.

    The arena is what its interpreter allocates here, where pointers have 64 bits: a microcontroller
    needs somewhat less, and more where its optimized kernels take scratch memory. Flash is the
    flatbuffer, without the code of the interpreter. Its time on this computer says nothing.
    """

    key: ClassVar[str] = "tflm"
    formats: ClassVar[tuple[FormatName, ...]] = (
        "c-array",
        "c-array-lut",
        "tflite-int8",
        "tflite-lut",
        "tflite-int16x8",
        "c-array-float",
        "tflite",
    )
    told: ClassVar[tuple[str, ...]] = ("arena_bytes", "flash_bytes")

    def check(self) -> None:
        """The package is there.

        Raises:
            UsageError: it is not.
        """
        check_package("device tflm", "tflite_micro", "tflm")

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Runs each file, and compares what it gives with LiteRT."""
        from tfprune.formats.sandbox import Sandbox

        with contextlib.closing(Sandbox()) as sandbox:
            return [self._measured(path, sandbox) for path in files]

    def _measured(self, path: Path, sandbox: Any) -> Measurement:
        from tfprune.formats.sandbox import call_on_file

        try:
            content = flatbuffer(path)
            found = call_on_file(sandbox, _run, path, content, timeout=_TIMEOUT_SECONDS)
        except TfpruneError as error:
            return Measurement({}, refusal=str(error))
        notes = []
        if found["off"] > (1 if found["integers"] else _SAME):
            unit = "steps of its integers" if found["integers"] else "of the outputs' range"
            notes.append(f"its outputs differ from LiteRT's by up to {found['off']:.3g} {unit}")
        return Measurement(
            {"arena_bytes": found["arena_bytes"], "flash_bytes": len(content)}, notes=tuple(notes)
        )

    def settings(self) -> dict[str, str]:
        """The version."""
        return {"tflite_micro": importlib.metadata.version("tflite_micro"), "pointers": "64 bits"}


# -- what happens in a process of its own -------------------------------------------------------


def _run(path: Path, content: bytes) -> dict[str, Any]:
    """The arena that TFLite Micro takes, and how far its outputs are off those of LiteRT."""
    from tfprune.formats.lut import is_compressed
    from tfprune.formats.tflite_micro import interpreter

    # LiteRT does not run these; their export compared them with the int8 file. It verifies the
    # others, which TFLite Micro does not.
    phone = None if is_compressed(content) else litert(path, content)
    with printed(2) as said:
        try:
            device = interpreter(content)
            if phone is None:
                off = 0.0
            else:
                off = max(_difference(phone, device, seed) for seed in range(_EXAMPLES))
            device.invoke()
            device.print_allocations()
        except (RuntimeError, ValueError) as error:
            raise TfpruneError(_refusal(path, said(), error)) from error
        total = _TOTAL.search(said())
    if total is None:
        raise TfpruneError(
            f"{path}: TFLite Micro does not say how large its arena is: give another version of "
            "tflite_micro"
        )
    integers = np.dtype(device.get_output_details(0)["dtype"]).kind in "iu"
    return {"arena_bytes": int(total[1]), "off": off, "integers": integers}


def _refusal(path: Path, said: str, error: Exception) -> str:
    missing = _NOT_FOUND.search(said)
    if missing:
        return (
            f"{path}: TFLite Micro has no kernel for {missing[1]}: replace the layers that use it"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = " ".join(lines[0].split())[:200] if lines else one_line(error)
    return f"{path} does not run in TFLite Micro ({reason}): replace what it cannot run"


def _difference(phone: Any, device: Any, seed: int) -> float:
    """How far outputs are apart: in steps of integers, or as a share of the range of floats."""
    for place, x in enumerate(feed(phone, seed)):
        device.set_input(x, place)
    phone.invoke()
    device.invoke()
    off = 0.0
    for place, details in enumerate(phone.get_output_details()):
        here, there = phone.get_tensor(details["index"]), device.get_output(place)
        distance = float(np.abs(here.astype(float) - there.astype(float)).max(initial=0.0))
        if here.dtype.kind == "f":
            distance /= largest([here])
        off = max(off, distance)
    return off
