"""A Python process of its own: what is loaded and run in it cannot disturb, or crash, this one."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from loky import process_executor
from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor, TerminatedWorkerError

from tfprune.errors import TfpruneError

T = TypeVar("T")


# A child leaves after so many idle seconds; the next call starts another.
_IDLE_SECONDS = 300


class Sandbox:
    """One child process that answers calls in their order.

    The child starts with the first call and keeps what functions store in their modules. It leaves
    with this process, and after five idle minutes; where it left or crashed, the next call starts
    another, which knows nothing of the calls before.

    Example:
        ```python
        sandbox = Sandbox()
        sandbox.submit(os.getpid).result()  # another number than os.getpid()
        ```
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begins a call in the child.

        Args:
            function: a function that the child can import.
            *arguments: what pickle takes.

        Returns:
            Its future. Its `result()` raises what the function raised; give it to `answer`, which
            tells a crash in one line.
        """
        future: Future[T]
        try:
            self._pool = self._pool or _pool()
            future = self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            self._pool = _pool()
            future = self._pool.submit(function, *arguments)
        return future

    def close(self) -> None:
        """Ends the child."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None


@functools.cache
def shared(name: str) -> Sandbox:
    """The sandbox of a name, one and the same: a child with TensorFlow takes long to start."""
    return Sandbox()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1,
        timeout=_IDLE_SECONDS,
        initializer=_begin,
        env={
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            # A directory that holds files to measure may hold a numpy.py as well.
            "PYTHONSAFEPATH": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        },
    )


def answer(future: Future[T], what: str, timeout: float) -> T:
    """Waits for a call in a sandbox.

    Args:
        future: from `Sandbox.submit`.
        what: what the child works on, for messages.
        timeout: seconds that it may take.

    Raises:
        TfpruneError: the child crashed, or it takes too long.
    """
    try:
        return future.result(timeout)
    except TimeoutError:
        raise TfpruneError(
            f"{what} takes longer than {timeout:.0f} s: do not use this file"
        ) from None
    except TerminatedWorkerError as error:
        raise TfpruneError(
            f"{what} crashes what runs it ({_signals(error)}): do not use this file"
        ) from None


def _begin() -> None:
    """Prepares the child."""
    # loky replaces a process that grew by 300 MB since its first call, and what it loaded is gone.
    process_executor._USE_PSUTIL = False
    # Libraries print as they like; what goes wrong comes back as an exception.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _signals(error: TerminatedWorkerError) -> str:
    """How the child ended, such as "SIGSEGV(-11)"."""
    _, found, codes = str(error).partition("are {")
    return codes.rstrip("}\n ") if found else "it was killed"
