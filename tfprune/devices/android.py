"""A phone that adb reaches: TensorFlow Lite's `benchmark_model` runs there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import Field

from tfprune.devices.base import Device, Measurement
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.vocabulary import FORMATS, FormatName

# Where every user may write and run programs.
_FOLDER = PurePosixPath("/data/local/tmp/tfprune")
_AVERAGE = re.compile(r"Inference \(avg\): *([0-9.e+-]+)")
_MEMORY = re.compile(r"overall=([0-9.]+)")
_MIB = 2**20


class Android(Device):
    """A phone or another device with Android that `adb` reaches.

    `benchmark_model`, built for the phone's processor, is copied there once a call, then each file,
    which is removed again. It prints the mean time of one example and the memory that the file
    took. Files are timed one after the other, `turns` times each, in turn; the median of the turns
    counts.

    Source:
        https://ai.google.dev/edge/litert/models/measurement describes `benchmark_model` and where
        it can be had.
    """

    key: ClassVar[str] = "android"
    # LiteRT does not run weights in tables.
    formats: ClassVar[tuple[FormatName, ...]] = tuple(
        name for name in FORMATS if name.startswith("tflite") and name != "tflite-lut"
    )
    told: ClassVar[tuple[str, ...]] = ("device_ms", "memory_bytes")

    benchmark_model: Annotated[
        Path, Field(description="the program of that name, built for the phone's processor")
    ]
    adb: Annotated[str, Field(description="the program, or its path")] = "adb"
    serial: Annotated[str | None, Field(description="of the phone, where adb reaches several")] = (
        None
    )
    threads: Annotated[int, Field(ge=1, le=64, description="of one example")] = 1
    rounds: Annotated[int, Field(ge=1, le=100_000, description="timed calls a turn")] = 50
    turns: Annotated[int, Field(ge=1, le=100, description="of each file")] = 3
    timeout: Annotated[float, Field(gt=0, description="of one turn, seconds")] = 300

    def check(self) -> None:
        """adb, the program and the phone are there.

        Raises:
            UsageError: one of them is not.
        """
        if shutil.which(self.adb) is None:
            raise UsageError(
                f"device android: {self.adb!r} is not found: install Android's platform tools, or "
                "give adb=PATH"
            )
        if not self.benchmark_model.is_file():
            raise UsageError(
                f"device android: benchmark_model={str(self.benchmark_model)!r} is not a file: "
                "build or download TensorFlow Lite's benchmark_model for the phone's processor"
            )
        state = self._run("get-state", check=False).strip()
        if state != "device":
            said = " ".join(state.split())[:100] or "no answer"
            raise UsageError(
                f"device android: adb reaches no phone ({said}): connect one, allow debugging, "
                "and give serial where there are several"
            )

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Copies the program and each file to the phone, and runs them there in turn."""
        import statistics

        program = _FOLDER / "benchmark_model"
        self._run("shell", f"mkdir -p {_FOLDER}")
        try:
            self._run("push", str(self.benchmark_model), str(program))
            self._run("shell", f"chmod 755 {program}")
            refusals: dict[Path, str] = {}
            milliseconds: dict[Path, list[float]] = {}
            memory: dict[Path, float] = {}
            distinct = list(dict.fromkeys(files))
            for turn in range(self.turns):
                for number, path in enumerate(distinct):
                    if path in refusals:
                        continue
                    if path.suffix != ".tflite":
                        refusals[path] = "it is not a .tflite file: export it as one of tflite-*"
                        continue
                    place = _FOLDER / f"model-{number}.tflite"
                    if not turn:
                        self._run("push", str(path), str(place))
                    said = self._benchmark(program, place)
                    found = _AVERAGE.findall(said)
                    if not found:
                        refusals[path] = f"benchmark_model cannot run it ({_last_line(said)})"
                        continue
                    # The last line is of the timed runs; it prints microseconds a call.
                    each = float(found[-1]) / 1000 / _batch(path)
                    milliseconds.setdefault(path, []).append(each)
                    if overall := _MEMORY.findall(said):
                        memory[path] = max(memory.get(path, 0.0), float(overall[-1]) * _MIB)
        finally:
            self._run("shell", f"rm -rf {_FOLDER}", check=False)
        return [
            Measurement({}, refusal=refusals[path])
            if path in refusals
            else Measurement(
                {
                    "device_ms": statistics.median(milliseconds[path]),
                    **({"memory_bytes": memory[path]} if path in memory else {}),
                }
            )
            for path in files
        ]

    def settings(self) -> dict[str, str]:
        """Threads and calls, and which phone."""
        asked = {"threads": str(self.threads), "rounds": str(self.rounds)}
        return {**asked, "serial": self.serial} if self.serial else asked

    def _benchmark(self, program: PurePosixPath, place: PurePosixPath) -> str:
        words = [
            str(program),
            f"--graph={place}",
            f"--num_threads={self.threads}",
            f"--num_runs={self.rounds}",
            # It runs at least so long otherwise, however many runs are asked for.
            "--min_secs=0",
            "--report_peak_memory_footprint=true",
        ]
        # What it prints goes to either stream, depending on the build.
        return self._run("shell", " ".join(words) + " 2>&1", check=False)

    def _run(self, *words: str, check: bool = True) -> str:
        """What adb prints.

        Raises:
            TfpruneError: it fails, or takes too long.
        """
        command = [self.adb, *(("-s", self.serial) if self.serial else ()), *words]
        shown = " ".join(command)[:120]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired:
            raise TfpruneError(
                f"device android: {shown} takes longer than {self.timeout:g} s: see whether the "
                "phone answers, or give a larger timeout"
            ) from None
        except OSError as error:
            raise TfpruneError(
                f"device android: {shown} cannot be run ({one_line(error)}): correct adb"
            ) from error
        if check and done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-200:]
            raise TfpruneError(
                f"device android: {shown} ends with exit code {done.returncode} ({said}): see "
                "whether the phone is connected and has space left"
            )
        return done.stdout if check or not done.returncode else done.stdout + done.stderr


def _batch(path: Path) -> int:
    """Examples of one call; benchmark_model runs a file with an open batch with one."""
    from tfprune.formats.tflite_file import TFLiteFile

    content = path.read_bytes()
    # The phone judges the file; one that is not TFLite tells nothing here.
    return (TFLiteFile(content).batch() or 1) if content[4:8] == b"TFL3" else 1


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:150] if lines else "it prints nothing"
