"""Loads and runs files in a fresh Python, which may crash without taking ours along."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.artifacts.artifact import Tensor
from tfprune.errors import TfpruneError, UsageError

if TYPE_CHECKING:
    from tfprune.artifacts.tflite import Feeds

TIMEOUT_SECONDS = 900.0


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a file did in a fresh Python.

    Attributes:
        inputs: What it takes, as it says.
        outputs: What it gives.
        values: Real float32 outputs by name.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    values: Feeds


class Checker:
    """A second Python that knows nothing but the files it is given.

    It starts when it is first needed and is used again, since starting takes seconds; it leaves by
    itself after two idle minutes, and with this process. It computes on the CPU.

    Args:
        timeout: Seconds that one file may take.
    """

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def prepare(self, modules: Sequence[str]) -> None:
        """Starts it and imports modules in it, without waiting.

        Args:
            modules: Their names.
        """
        with self._lock:
            self._send({"modules": list(modules), "paths": _paths()})

    def run(self, path: Path, feeds: Feeds | None = None, modules: Sequence[str] = ()) -> Checked:
        """Loads a file and runs it once.

        Args:
            path: The file.
            feeds: Real values by input name, shape `(n, ...)`; random pixels if None.
            modules: What to import first, such as modules that register custom layers.

        Raises:
            TfpruneError: It cannot be loaded or run, crashes Python, or takes too long.
            UsageError: A package that it needs is not installed.
        """
        with self._lock, tempfile.TemporaryDirectory(prefix="tfprune-") as scratch:
            given, results = Path(scratch, "feeds.npz"), Path(scratch, "results.npz")
            if feeds is not None:
                np.savez(given, *feeds.values())
            request = {
                "path": str(path.resolve()),
                "feeds": None if feeds is None else str(given),
                "names": list(feeds or ()),
                "results": str(results),
                "modules": list(modules),
                "paths": _paths(),
            }
            answer = self._ask(request, path)
            if "error" in answer:
                # Where the file lies while it is checked is nobody's concern.
                said = str(answer["error"]).replace(str(path.resolve()), str(path))
                raise (UsageError if answer["exit_code"] == 2 else TfpruneError)(said)
            with np.load(results) as stored:
                values = dict(zip(answer["names"], stored.values(), strict=True))
        inputs, outputs = (
            tuple(Tensor(**{**each, "shape": tuple(each["shape"])}) for each in answer[end])
            for end in ("inputs", "outputs")
        )
        return Checked(inputs, outputs, values)

    def close(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, request: dict[str, Any], path: Path) -> dict[str, Any]:
        line, code = self._answer(request)
        if not line and code == 0:
            # It left because nobody asked, just as we did.
            line, code = self._answer(request)
        if line:
            return dict(json.loads(line))
        if code is None:
            how = f"takes longer than {self._timeout:.0f} s"
        else:
            how = f"crashes the interpreter ({_signal_name(code)})"
        raise TfpruneError(f"{path} {how} when it is loaded and run: do not use this file")

    def _answer(self, request: dict[str, Any]) -> tuple[str, int | None]:
        """The line it answers with, or an empty one and its exit code: None where it took long."""
        process = self._send(request)
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout, stop)
        timer.daemon = True
        timer.start()
        try:
            line = process.stdout.readline()
        except BaseException:
            # What it may still answer belongs to no later question.
            self.close()
            raise
        finally:
            timer.cancel()
        if line:
            return line, None
        code = process.wait()
        self.close()
        return "", None if late.is_set() else code

    def _send(self, request: dict[str, Any]) -> subprocess.Popen[str]:
        line = json.dumps(request) + "\n"
        if self._process is not None and self._process.poll() is None:
            try:
                return self._write(self._process, line)
            except BrokenPipeError:
                pass
        self.close()
        self._process = self._started()
        return self._write(self._process, line)

    def _write(self, process: subprocess.Popen[str], line: str) -> subprocess.Popen[str]:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()
        return process

    def _started(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(_paths()),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # A GPU may be full with the model that is being exported.
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        return subprocess.Popen(
            # -P: a directory that holds files to verify may hold a numpy.py as well.
            [sys.executable, "-P", "-m", "tfprune.artifacts.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=environment,
        )


@functools.cache
def shared() -> Checker:
    """The one that all exports of this process use."""
    checker = Checker()
    atexit.register(checker.close)
    return checker


def _paths() -> list[str]:
    """Where this Python looks for modules, now."""
    return [path or str(Path.cwd()) for path in sys.path]


def _signal_name(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
