"""Finished results, each in a folder named after everything that it depends on."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, write_json
from tfprune.pipeline.steps import SCRATCH
from tfprune.report.records import Identified, read_record

_LOCKS = ".locks"
_SESSION = "session-"


def is_finished(folder: Path, identity: str) -> bool:
    """Whether `folder` holds the finished result of that identity.

    Raises:
        TfpruneError: its record is damaged, so the content of the folder is unknown.
    """
    path = folder / RECORD
    return path.is_file() and bool(read_record(path, Identified)["identity"] == identity)


def partial(folder: Path, identity: str) -> Path:
    """Where a result is made before it is finished."""
    return folder.with_name(f".{folder.name}-{identity}.partial")


def session_file(directory: Path, name: str) -> Path:
    """The lock file of a session, which lies in the folder of the run as long as it goes on."""
    return directory / _LOCKS / f"{_SESSION}{name}.lock"


class Store:
    """The results of one run.

    Several processes may work in one store: each result is made by one of them, and the others
    wait for it. Locks are the operating system's, so a killed process holds none.

    Args:
        directory: the directory of the run.
        say: told in one line what is waited for.
    """

    def __init__(self, directory: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.directory = directory
        self._say = say

    def finish(
        self, folder: Path, identity: str, make: Callable[[Path], dict[str, Any]]
    ) -> dict[str, Any]:
        """Makes a result once, and gives its record.

        The result is made beside its final place and renamed into it, so a folder under its final
        name is whole. What a killed attempt left is handed to the next one, which may resume from
        it.

        Args:
            folder: where the result goes.
            identity: the `key` of everything the result depends on.
            make: fills the directory it is given, and returns what to record.

        Returns:
            The record, as stored with the result.

        Raises:
            TfpruneError: the folder cannot be written.
        """
        if not is_finished(folder, identity):
            name = folder.relative_to(self.directory).as_posix()
            with self.lock(name.replace("/", "--"), f"waiting for another run to make {name}"):
                if not is_finished(folder, identity):
                    _make(folder, identity, make)
        return read_record(folder / RECORD, Identified)

    @contextmanager
    def lock(self, name: str, waiting: str) -> Iterator[None]:
        """Keeps others out of something, in this process and all others.

        Args:
            name: what to lock; a file name.
            waiting: said when somebody else holds it.
        """
        lock = FileLock(self.directory / _LOCKS / f"{name}.lock")
        try:
            (self.directory / _LOCKS).mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            self._say(waiting)
            lock.acquire()
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def session(self) -> Iterator[str]:
        """Marks a run as in progress, so that its results are not deleted.

        Yields:
            The session's own name.
        """
        name = uuid.uuid4().hex[:12]
        with self.lock("gc", "waiting for `tfprune runs gc`"):
            own = FileLock(session_file(self.directory, name))
            own.acquire(timeout=0)
        try:
            yield name
        finally:
            own.release()
            Path(own.lock_file).unlink(missing_ok=True)

    def sessions(self) -> list[str]:
        """The names of the runs that are going on."""
        going = []
        for path in sorted((self.directory / _LOCKS).glob(f"{_SESSION}*.lock")):
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                going.append(path.stem.removeprefix(_SESSION))
            else:
                # A killed process left it, and no other process removes it.
                lock.release()
                path.unlink(missing_ok=True)
        return going


def _make(folder: Path, identity: str, make: Callable[[Path], dict[str, Any]]) -> None:
    unfinished = partial(folder, identity)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        # A kill may have come between the record and the renaming.
        if not is_finished(unfinished, identity):
            write_json(unfinished / RECORD, {"identity": identity, **make(unfinished)})
        shutil.rmtree(unfinished / SCRATCH, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> TfpruneError:
    return TfpruneError(
        f"{folder} cannot be written ({error.strerror or error}): "
        "give --out a directory you can write to"
    )
