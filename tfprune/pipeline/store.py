"""Finished results, each in a folder named after everything that it depends on."""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, partial_folder, write_json
from tfprune.pipeline.steps import SCRATCH
from tfprune.report.records import Identified, read_record

if TYPE_CHECKING:
    from tfprune.pipeline.shared import SharedStore

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
        shared: where results are looked for before they are made, and put afterwards; None for
            nowhere.
    """

    def __init__(
        self,
        directory: Path,
        say: Callable[[str], None] = lambda line: None,
        shared: SharedStore | None = None,
    ) -> None:
        self.directory = directory
        self.shared = shared
        self._say = say
        # What cannot be used is told once where this process makes it anew.
        self._unreadable: set[str] = set()

    def finish(
        self,
        folder: Path,
        identity: str,
        make: Callable[[Path], dict[str, Any]],
        shared_name: str | None = None,
    ) -> dict[str, Any]:
        """Makes a result once, and gives its record.

        The result is made beside its final place and renamed into it, so a folder under its final
        name is whole. What a killed attempt left is handed to the next one, which may resume from
        it.

        Args:
            folder: where the result goes.
            identity: the `key` of everything the result depends on.
            make: fills the directory it is given, and returns what to record.
            shared_name: what the result is called in the shared store; None for one that has no
                place there.

        Returns:
            The record, as stored with the result.

        Raises:
            TfpruneError: the folder cannot be written.
        """
        if is_finished(folder, identity):
            # Who asks for it did not find it in the shared store, or not whole.
            self.share(folder, identity, shared_name)
        else:
            with self._making(folder):
                if not is_finished(folder, identity):
                    is_known = shared_name in self._unreadable
                    if is_known or not self._fetched(folder, identity, shared_name):
                        _make(folder, identity, make)
                        self._put(folder, shared_name)
        return read_record(folder / RECORD, Identified)

    def fetch(self, folder: Path, identity: str, shared_name: str | None) -> bool:
        """Fetches a result from the shared store, unless it is here; see `finish`.

        Returns:
            Whether it is here now. A warning says why what is there cannot be used.
        """
        if is_finished(folder, identity):
            return True
        if self.shared is None or shared_name is None:
            return False
        with self._making(folder):
            return is_finished(folder, identity) or self._fetched(folder, identity, shared_name)

    def missing(self, name: str, seed: int) -> None:
        """Tells that the shared store should have a result, and has not.

        Args:
            name: of the step or the variant.
            seed: of it.

        Raises:
            TfpruneError: in any case but one: without a shared store the folder is shared.
        """
        if self.shared is not None:
            raise TfpruneError(
                f"the result of {name}, seed {seed}, is not in {self.shared.address}, or cannot be "
                "read: a warning says why, or the worker sees another store at this address"
            )

    def share(self, folder: Path, identity: str, shared_name: str | None) -> bool:
        """Puts a result that is here into the shared store; see `finish`.

        Returns:
            Whether it is there now. A warning says why it cannot be put.
        """
        if self.shared is None or shared_name is None:
            return False
        with self._making(folder):
            return is_finished(folder, identity) and self._put(folder, shared_name)

    def _making(self, folder: Path) -> AbstractContextManager[None]:
        name = folder.relative_to(self.directory).as_posix()
        return self.lock(name.replace("/", "--"), f"waiting for another run to make {name}")

    def _fetched(self, folder: Path, identity: str, shared_name: str | None) -> bool:
        if self.shared is None or shared_name is None:
            return False
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with partial_folder(folder.parent) as room:
                found = self._read(identity, shared_name, room)
                if found is None:
                    return False
                _replace(found, folder)
            # What an attempt left that was killed here.
            shutil.rmtree(partial(folder, identity), ignore_errors=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return True

    def _read(self, identity: str, shared_name: str, room: Path) -> Path | None:
        """The folder of a whole result in `room`; one that is not whole is made anew."""
        assert self.shared is not None
        try:
            found = self.shared.get(shared_name, room)
            if found is None or _is_of(found, identity):
                return found
            why = f"{self.shared.url(shared_name)} is not the result of this task"
        except TfpruneError as error:
            why = str(error)
        self._unreadable.add(shared_name)
        warnings.warn(f"{why}: its result is made anew", stacklevel=2)
        return None

    def _put(self, folder: Path, shared_name: str | None) -> bool:
        """What cannot be put is not lost: it is here."""
        if self.shared is None or shared_name is None:
            return False
        try:
            self.shared.put(folder, shared_name)
        except TfpruneError as error:
            warnings.warn(f"{error}; the result is kept in {folder}", stacklevel=2)
            return False
        return True

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
        _replace(unfinished, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _is_of(found: Path, identity: str) -> bool:
    """Whether a result that was made elsewhere has a record, and of that identity."""
    try:
        return is_finished(found, identity)
    except TfpruneError:
        return False


def _replace(whole: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    whole.replace(folder)


def _unwritable(folder: Path, error: OSError) -> TfpruneError:
    return TfpruneError(
        f"{folder} cannot be written ({error.strerror or error}): "
        "give --out a directory you can write to"
    )
