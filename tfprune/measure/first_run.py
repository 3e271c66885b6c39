"""Runs files once in processes of their own: what memory they need, and that they do not crash."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tfprune.errors import TfpruneError, one_line
from tfprune.files import existing
from tfprune.formats import FILE_TYPES, file_type, load
from tfprune.formats.registry import TENSORFLOW
from tfprune.formats.runtime import limit_threads, zero_feeds
from tfprune.formats.sandbox import Sandbox, call_on_file
from tfprune.model.reference import InputShape

TIMEOUT_SECONDS = 600.0
_RUNS = 3


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """What a file took in a fresh process.

    Attributes:
        memory_bytes: Peak memory of loading the file and running one example three times: the
            high-water mark of the resident memory, minus what was resident before.
        baseline_bytes: Resident before, with the libraries that run the file already loaded.
    """

    memory_bytes: int
    baseline_bytes: int


def first_run(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    input_shape: InputShape | None = None,
    modules: Sequence[str] = (),
    timeout: float = TIMEOUT_SECONDS,
) -> FirstRun:
    """Loads a file and runs it in a fresh Python, which may crash while this one goes on.

    Example:
        ```python
        first_run("model.tflite").memory_bytes
        ```

    Args:
        path: A file or directory that `load` takes.
        threads: Threads of the runtime; None for 1 of TFLite and TensorFlow's own choice.
        input_shape: Shape of one example where the file takes any size, without the batch; or those
            of several inputs by their names.
        modules: What to import first, such as modules that register custom layers.
        timeout: Seconds that it may take.

    Raises:
        TfpruneError: It cannot be loaded or run, crashes Python, or takes too long.
        UsageError: Its kind is unknown.
    """
    path = existing(path)
    kind = file_type(path)  # an unknown kind need not start a process
    if kind.content:
        # Reading the text takes more memory than many a model.
        with tempfile.TemporaryDirectory(prefix="tfprune-") as scratch:
            inner = Path(scratch, f"{path.stem}{FILE_TYPES[kind.content].suffixes[0]}")
            inner.write_bytes(kind.load_library().read(path))
            try:
                return first_run(inner, threads=threads, input_shape=input_shape, timeout=timeout)
            except TfpruneError as error:
                raise type(error)(str(error).replace(str(inner), str(path))) from None
    with contextlib.closing(Sandbox()) as sandbox:
        arguments = (threads, input_shape, tuple(modules))
        return call_on_file(sandbox, _measured, path, *arguments, timeout=timeout)


def first_runs(
    paths: Sequence[Path],
    *,
    threads: int | None = None,
    input_shape: InputShape | None = None,
) -> list[FirstRun]:
    """`first_run` of several files, as many at a time as there are cores; in their order."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(
            pool.map(lambda p: first_run(p, threads=threads, input_shape=input_shape), paths)
        )


# -- what happens in a process of its own -------------------------------------------------------


def _measured(
    path: Path, threads: int | None, input_shape: InputShape | None, modules: Sequence[str]
) -> FirstRun:
    try:
        for module in modules:
            importlib.import_module(module)
        return _run(path, threads, input_shape)
    except TfpruneError:
        raise
    # A damaged graph may load, and fail anywhere when it runs.
    except Exception as error:
        raise TfpruneError(
            f"{path} cannot be loaded and run ({one_line(error)}): export it again"
        ) from error


def _run(path: Path, threads: int | None, input_shape: InputShape | None) -> FirstRun:
    # What the libraries themselves take is not the model's: they come before the baseline.
    kind = file_type(path)
    kind.load_library()
    if kind.library == TENSORFLOW:
        import tensorflow as tf

        limit_threads(threads)
        # The first operation of all wakes TensorFlow's devices.
        tf.zeros(1)
    _forget_the_peak()
    baseline = psutil.Process().memory_info().rss
    runtime = load(path, threads=threads or 1)
    # Zeros are row numbers of any table, and memory does not depend on values.
    feeds = zero_feeds(runtime.inputs, 1, str(path), input_shape)
    call = runtime.one({name: x[0] for name, x in feeds.items()})
    for _ in range(_RUNS):
        call()
    return FirstRun(max(_peak() - baseline, 0), baseline)


def _forget_the_peak() -> None:
    """Lets the high-water mark start from what the process has now, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The high-water mark of the resident memory, bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM:")]
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, others KiB.
        return peak if sys.platform == "darwin" else 1024 * peak
