"""A Python process of its own: what is loaded and run in it cannot disturb, or crash, this one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from loky import process_executor
from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor, TerminatedWorkerError

from tfprune.errors import TfpruneError, one_line
from tfprune.formats.registry import FILE_TYPES, FileType, open_file
from tfprune.formats.runtime import Feeds, Runtime, Tensor, random_feeds, zero_feeds
from tfprune.functions import IMPORTS, imported_files

T = TypeVar("T")

# A child leaves after so many idle seconds; the next call starts another.
IDLE_SECONDS = 300.0
_RANDOM_EXAMPLES = 2


class Sandbox:
    """One child process that answers calls in their order.

    The child starts with the first call and keeps what functions store in their modules. It leaves
    with this process, and after some idle minutes; where it left or crashed, the next call starts
    another, which knows nothing of the calls before. It computes on the CPU: a GPU may be full with
    the model that is being exported.

    Example:
        ```python
        with contextlib.closing(Sandbox()) as sandbox:
            sandbox.run(os.getpid, what="this", timeout=60)  # another number than os.getpid()
        ```

    Args:
        idle_seconds: After so much time without a call the child leaves.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begins a call in the child, without waiting.

        Args:
            function: A function that the child can import.
            *arguments: What pickle takes.

        Returns:
            Its future, for `answer`.
        """
        call = (
            _call,
            Path.cwd(),
            paths_here(),
            imports_here(),
            dict(FILE_TYPES),
            function,
            *arguments,
        )
        future: Future[T]
        try:
            self._pool = self._pool or self._started()
            future = self._pool.submit(*call)
        except BrokenProcessPool:
            self._pool = self._started()
            future = self._pool.submit(*call)
        _close_at_exit()
        return future

    def answer(self, future: Future[T], what: str, timeout: float) -> T:
        """Waits for a call, and ends the child where it takes too long or is interrupted.

        Args:
            future: From `submit`.
            what: What the child works on, for messages.
            timeout: Seconds that it may take.

        Returns:
            What the function returned; what it raised is raised here.

        Raises:
            TfpruneError: The child crashed, or it takes too long.
        """
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            raise TfpruneError(
                f"{what} takes longer than {timeout:.0f} s when it is loaded and run: "
                "do not use this file"
            ) from None
        except TerminatedWorkerError as error:
            raise TfpruneError(
                f"{what} crashes the interpreter ({_ending(error)}) when it is loaded and run: "
                "do not use this file"
            ) from None
        finally:
            if not future.done():
                self.close()

    def run(self, function: Callable[..., T], *arguments: Any, what: str, timeout: float) -> T:
        """Calls a function in the child and waits for it; see `submit` and `answer`."""
        # The time of one call does not count for another thread's.
        with self._lock:
            return self.answer(self.submit(function, *arguments), what, timeout)

    def close(self) -> None:
        """Ends the child."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    def _started(self) -> ProcessPoolExecutor:
        _sandboxes.add(self)
        return ProcessPoolExecutor(
            1,
            timeout=self._idle_seconds,
            initializer=_begin,
            initargs=(os.getpid(),),
            env={
                "PYTHONPATH": os.pathsep.join(paths_here()),
                # A directory that holds files to measure may hold a numpy.py as well.
                "PYTHONSAFEPATH": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "CUDA_VISIBLE_DEVICES": "-1",
            },
        )


_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@functools.cache
def _close_at_exit() -> None:
    """Lets no child delay the end of this process.

    At exit loky waits for calls under way. It asks for that when its first process starts, and what
    is asked for later comes earlier.
    """
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]


def _close_all() -> None:
    for sandbox in list(_sandboxes):
        sandbox.close()


@functools.cache
def shared(name: str) -> Sandbox:
    """The sandbox of a name, one and the same: a child with TensorFlow takes long to start."""
    return Sandbox()


@dataclasses.dataclass(frozen=True)
class FileAnswers:
    """What a file did in a sandbox.

    Attributes:
        inputs: What it takes, as it says.
        outputs: What it gives.
        values: Real float32 outputs by name.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    values: Feeds


def run_file(
    sandbox: Sandbox,
    path: Path,
    feeds: Feeds | None = None,
    *,
    modules: Sequence[str] = (),
    timeout: float,
) -> FileAnswers:
    """Opens a file in a sandbox and runs it once.

    Example:
        ```python
        run_file(Sandbox(), Path("model.tflite"), timeout=60).values["output_0"]
        ```

    Args:
        sandbox: Where it is opened.
        path: A file of any kind.
        feeds: Real values by input name, shape `(n, ...)`, which may have any name where there is
            one input; random pixels if None, or zeros where it does not take these.
        modules: What to import first, such as modules that register custom layers.
        timeout: Seconds that it may take.

    Raises:
        TfpruneError: It cannot be loaded or run, crashes Python, or takes too long.
        UsageError: A package that it needs is not installed.
    """
    return call_on_file(sandbox, _run_once, path, feeds, tuple(modules), timeout=timeout)


def call_on_file(
    sandbox: Sandbox, function: Callable[..., T], path: Path, *arguments: Any, timeout: float
) -> T:
    """Calls a function with a path in a sandbox; messages name the path as it was given.

    Args:
        sandbox: Where it is called.
        function: Takes the absolute path, then the arguments.
        path: The file.
        *arguments: See `Sandbox.submit`.
        timeout: Seconds that it may take.

    Raises:
        TfpruneError: The function raised it, crashed Python, or takes too long.
    """
    found = path.resolve()
    try:
        return sandbox.run(function, found, *arguments, what=str(path), timeout=timeout)
    except TfpruneError as error:
        raise type(error)(str(error).replace(str(found), str(path))) from None


def _ending(error: TerminatedWorkerError) -> str:
    """How the child ended, such as "SIGSEGV" or "exit code 3"."""
    found = re.search(r"are \{(\w+)\((-?\d+)\)", str(error))
    if not found:
        return "it was killed"
    name, code = found.groups()
    return name if int(code) < 0 else f"exit code {code}"


def imports_here() -> str:
    """What this process has imported for its models, as the child's environment says it."""
    named = [each for each in os.environ.get(IMPORTS, "").split(os.pathsep) if each]
    return os.pathsep.join(dict.fromkeys([*named, *imported_files().values()]))


def paths_here() -> list[str]:
    """Where this Python looks for modules, now."""
    return [path or str(Path.cwd()) for path in sys.path]


# -- what happens in the child ------------------------------------------------------------------


def import_libraries(*modules: str) -> None:
    """Imports modules, so that the next call finds them ready."""
    for module in modules:
        importlib.import_module(module)


def _begin(parent: int) -> None:
    """Prepares the child."""
    # loky replaces a process that grew by 300 MB since its first call, and what it loaded is gone.
    process_executor._USE_PSUTIL = False
    # Libraries print here too; what goes wrong comes back as an exception.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()


def leave_with(parent: int) -> None:
    """Ends the child soon after its parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _call(
    directory: Path,
    paths: list[str],
    imports: str,
    file_types: dict[str, FileType],
    function: Callable[..., T],
    *arguments: Any,
) -> T:
    """Calls a function where files, modules and kinds of files are found as in the parent."""
    os.chdir(directory)
    sys.path[:] = dict.fromkeys([*sys.path, *paths])
    # A module may be younger than this process.
    importlib.invalidate_caches()
    FILE_TYPES.update(file_types)
    # Who loads a Keras model imports them.
    os.environ[IMPORTS] = imports
    return function(*arguments)


def _run_on_some(runtime: Runtime) -> Feeds:
    """Runs random pixels; where these fail, zeros, which are row numbers of any table."""
    try:
        return runtime.run(random_feeds(runtime.inputs, _RANDOM_EXAMPLES, runtime.name))
    # Each library has errors of its own for a number that is not in a table.
    except Exception:
        return runtime.run(zero_feeds(runtime.inputs, _RANDOM_EXAMPLES, runtime.name))


def _run_once(path: Path, feeds: Feeds | None, modules: Sequence[str]) -> FileAnswers:
    for module in modules:
        # What is really missed shows when a file is loaded.
        with contextlib.suppress(Exception):
            from tfprune.model.loading import import_layers

            import_layers(module)
    said = "cannot be loaded"
    try:
        runtime = open_file(path)
        said = "was loaded and does not run"
        values = _run_on_some(runtime) if feeds is None else runtime.run(feeds)
    except TfpruneError:
        raise
    # A damaged graph may load, and fail anywhere when it runs.
    except Exception as error:
        raise TfpruneError(f"{path} {said} ({one_line(error)}): export it again") from error
    return FileAnswers(runtime.inputs, runtime.outputs, values)
