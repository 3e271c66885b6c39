"""Runs files once in processes of their own: what memory they need, and that they do not crash."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfprune.errors import TfpruneError, UsageError
from tfprune.files import existing
from tfprune.measure.c_array import c_array
from tfprune.measure.runtime import runtime_module

TIMEOUT_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """What a file took in a fresh process.

    Attributes:
        memory_bytes: Peak memory of loading the file and running one image three times: the
            high-water mark of the resident memory, minus what was resident before.
        baseline_bytes: Resident before, with the libraries that run the file already loaded.
    """

    memory_bytes: int
    baseline_bytes: int


def first_run(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    image_shape: Sequence[int] | None = None,
    modules: Sequence[str] = (),
    timeout: float = TIMEOUT_SECONDS,
) -> FirstRun:
    """Loads a file and runs it in a fresh Python, which may crash without taking ours along.

    Args:
        path: A file or directory that `load` takes.
        threads: Threads of the runtime; None for 1 of TFLite and TensorFlow's own choice.
        image_shape: Shape of one image where the file takes any size.
        modules: What to import first, such as modules that register custom layers.
        timeout: Seconds that it may take.

    Raises:
        TfpruneError: It cannot be loaded or run, crashes Python, or takes too long.
        UsageError: Its kind is unknown.
    """
    path = existing(path)
    runtime_module(path)  # an unknown kind need not start a process
    if path.suffix == ".cc":
        # Reading the text takes more memory than many a model.
        with tempfile.TemporaryDirectory(prefix="tfprune-") as scratch:
            inner = Path(scratch, f"{path.stem}.tflite")
            inner.write_bytes(c_array(path))
            try:
                return first_run(inner, threads=threads, image_shape=image_shape, timeout=timeout)
            except TfpruneError as error:
                said = str(error).replace(str(inner.resolve()), str(path))
                raise type(error)(said.replace(str(inner), str(path))) from None
    paths = [each or str(Path.cwd()) for each in sys.path]
    request = {
        "path": str(path.resolve()),
        "threads": threads,
        "image_shape": None if image_shape is None else list(image_shape),
        "modules": list(modules),
        "paths": paths,
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    try:
        done = subprocess.run(
            # -P: a directory that holds files to measure may hold a numpy.py as well.
            [sys.executable, "-P", "-m", "tfprune.measure.worker"],
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise TfpruneError(
            f"{path} takes longer than {timeout:.0f} s to load and run once: do not use this file"
        ) from None
    if not done.stdout:
        code = done.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise TfpruneError(
            f"{path} crashes what runs it ({how}) when it is loaded and run: do not use this file"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        said = str(answer["error"]).replace(str(path.resolve()), str(path))
        raise (UsageError if answer["exit_code"] == 2 else TfpruneError)(said)
    baseline = answer["baseline_bytes"]
    return FirstRun(answer["peak_bytes"] - baseline, baseline)


def first_runs(
    paths: Sequence[Path],
    *,
    threads: int | None = None,
    image_shape: Sequence[int] | None = None,
) -> list[FirstRun]:
    """`first_run` of several files, as many at a time as there are cores; in their order."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(
            pool.map(lambda p: first_run(p, threads=threads, image_shape=image_shape), paths)
        )
