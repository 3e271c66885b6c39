"""Any device, by a command of the user's that measures a file."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from tfprune.devices.base import Device, Measurement
from tfprune.errors import TfpruneError, one_line
from tfprune.figures import check_name, on_devices
from tfprune.vocabulary import FORMATS, FormatName

_PLACE = "{file}"


class Command(Device):
    """What a command of the user's measures, such as `ssh pi ./bench {file}`.

    It runs once for each file, without a shell. It prints a number, which are milliseconds, or a
    JSON object of names and numbers: those of `tfprune.figures` (`device_ms`, `cycles`,
    `memory_bytes`, ...) have their units, others are shown as they are. What it prints on stderr is
    shown if it fails.
    """

    key: ClassVar[str] = "command"
    formats: ClassVar[tuple[FormatName, ...]] = ("tflite", *(f for f in FORMATS if f != "tflite"))
    told: ClassVar[tuple[str, ...]] = ()

    command: Annotated[str, Field(description="with {file} where the file's path goes")]
    timeout: Annotated[float, Field(gt=0, description="of one file, seconds")] = 600

    @field_validator("command")
    @classmethod
    def _has_a_place(cls, command: str) -> str:
        if _PLACE not in command:
            raise ValueError(f"command has no {_PLACE}: write it where the file's path goes")
        if not shlex.split(command):
            raise ValueError("command is empty")
        return command

    def check(self) -> None:
        """The program of the command is there.

        Raises:
            UsageError: it is not.
        """
        import shutil

        from tfprune.errors import UsageError

        program = shlex.split(self.command)[0]
        if shutil.which(program) is None:
            raise UsageError(
                f"device command: the program {program!r} is not found: install it, or give its "
                "path"
            )

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Runs the command once for each file, one after the other."""
        return [self._measured(path) for path in files]

    def _measured(self, path: Path) -> Measurement:
        words = [word.replace(_PLACE, str(path)) for word in shlex.split(self.command)]
        shown = shlex.join(words)
        try:
            done = subprocess.run(
                words, capture_output=True, encoding="utf-8", errors="replace", timeout=self.timeout
            )
        except subprocess.TimeoutExpired:
            raise TfpruneError(
                f"device command: {shown} takes longer than {self.timeout:g} s: give a larger "
                "timeout"
            ) from None
        except OSError as error:
            raise TfpruneError(
                f"device command: {shown} cannot be run ({one_line(error)}): correct it"
            ) from error
        if done.returncode:
            said = " ".join(done.stderr.split())[-200:] or "it prints nothing on stderr"
            raise TfpruneError(
                f"device command: {shown} ends with exit code {done.returncode} ({said}): correct "
                "it, or the device"
            )
        return Measurement(_read(done.stdout, shown))


def _read(text: str, shown: str) -> dict[str, float]:
    """The figures that a command printed.

    Raises:
        TfpruneError: it is neither a number nor a JSON object of numbers.
    """
    expected = "print a number (milliseconds), or one JSON object of names and numbers"
    try:
        found: Any = json.loads(text)
    # RecursionError: an array that nests too deeply.
    except (ValueError, RecursionError):
        cut = " ".join(text.split())[:60]
        raise TfpruneError(
            f"device command: {shown} prints {cut!r}, which is not JSON: {expected}"
        ) from None
    values = found if isinstance(found, dict) else {"device_ms": found}
    if not values:
        raise TfpruneError(f"device command: {shown} prints no figure: {expected}")
    known = {each.name for each in on_devices()}
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise TfpruneError(
                f"device command: {shown} prints {name} = {str(value)[:60]!r}, which is not a "
                f"finite number: {expected}"
            )
        if name not in known:
            try:
                check_name(name)
            except ValueError as error:
                raise TfpruneError(f"device command: {shown} prints a figure: {error}") from None
    return {name: float(value) for name, value in values.items()}
