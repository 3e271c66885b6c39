"""A Python process of its own: what is loaded and run in it cannot disturb, or crash, this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from loky import process_executor
from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from tfprune.errors import TfpruneError

T = TypeVar("T")


class Sandbox:
    """One child process that answers calls in their order; a context manager.

    The child keeps what functions store in their modules between two calls. It ends with the
    `with` block, or with this process.

    Example:
        ```python
        with Sandbox() as sandbox:
            sandbox.submit(os.getpid).result()  # another number than os.getpid()
        ```

    Args:
        paths: directories from which the child imports first; `sys.path` if not given.
    """

    def __init__(self, paths: Sequence[str] | None = None) -> None:
        self._pool = ProcessPoolExecutor(
            1,
            initializer=_begin,
            env={
                "PYTHONPATH": os.pathsep.join(path for path in (paths or sys.path) if path),
                # A directory that holds files to measure may hold a numpy.py as well.
                "PYTHONSAFEPATH": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "CUDA_VISIBLE_DEVICES": "-1",
            },
        )

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begins a call in the child.

        Args:
            function: a function that the child can import.
            *arguments: what pickle takes.

        Returns:
            Its future, whose `result()` raises what the function raised, and a `TfpruneError` from
            `crash` where the child died.
        """
        future: Future[T] = self._pool.submit(function, *arguments)
        return future


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
