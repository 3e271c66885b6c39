"""Files that are whole or absent, never half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tfprune.errors import TfpruneError, UsageError

# What every folder of a run says of itself: the pipeline writes it, the report reads it.
RECORD = "record.json"
# How the name of a file ends that holds a whole Keras model.
MODEL_FILES = (".keras", ".h5", ".hdf5")
PARTIAL = ".partial-"
_LOCK = ".lock"
_ABANDONED_SECONDS = 3600


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes a text file; whoever reads meanwhile sees the old one or the new one.

    Args:
        path: the file; its directory is made when missing.
        text: the whole content.

    Returns:
        The path.

    Raises:
        TfpruneError: it cannot be written there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(path.parent) as partial:
            fresh = partial / path.name
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


@contextlib.contextmanager
def partial_folder(directory: Path) -> Iterator[Path]:
    """A folder for files that are not whole yet, which goes away with what is left in it.

    It lies in the directory that the files shall move to, since a rename is atomic only within one
    file system. Whoever is killed leaves it behind; `sweep` knows it by its lock, which the system
    takes off.

    Args:
        directory: an existing directory.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=PARTIAL) as partial:
        lock = FileLock(Path(partial, _LOCK))
        with lock:
            yield Path(partial)


def sweep(directory: Path) -> None:
    """Removes the partial folders of processes that are gone; others keep theirs.

    Args:
        directory: where they lie; what cannot be removed stays.
    """
    for found in directory.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError, Timeout):
            if not found.is_dir() or found.is_symlink():
                continue
            if (found / _LOCK).exists():
                with FileLock(found / _LOCK, timeout=0):
                    shutil.rmtree(found, ignore_errors=True)
            # Between making a folder and locking it, and before folders had locks.
            elif time.time() - found.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(found, ignore_errors=True)


def write_json(path: str | os.PathLike[str], document: Any) -> Path:
    """Writes a JSON file like `write_text`."""
    return write_text(path, json.dumps(document, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        TfpruneError: it is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TfpruneError(
            f"{path} cannot be read ({error.strerror}): check the path, or make it first"
        ) from error
    # JSON that nests without end is damage as well.
    except (ValueError, RecursionError) as error:
        raise TfpruneError(f"{path} is damaged: delete it and run again") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Makes sure that a file can be written at a path, before the work whose result it takes.

    A small file is written beside it and removed again; folders that are missing are not made.

    Raises:
        UsageError: a folder lies there, or the name cannot be one.
        TfpruneError: nothing can be written there.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a directory: give the name of a file")
        _try_writing(path.parent, path.name)
    except OSError as error:
        raise _unwritable(path, error) from error


def check_folder(path: str | os.PathLike[str]) -> None:
    """Makes sure that files can be written in a folder, as `check_writable`.

    Raises:
        TfpruneError: nothing can be written there.
    """
    path = Path(path)
    try:
        _try_writing(path, "file")
    except OSError as error:
        raise _unwritable(path, error) from error


def _try_writing(folder: Path, name: str) -> None:
    try:
        str(folder / name).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{os.fsencode(folder / name).decode(errors='replace')} is not a name in UTF-8, which "
            "libraries that write files want: choose another"
        ) from None
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial,
        Path(partial, name).open("wb") as file,
    ):
        # A full disk takes names, but no content.
        file.write(bytes(1 << 12))
        file.flush()
        os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> TfpruneError:
    return TfpruneError(
        f"{path} cannot be written ({error.strerror}): give a place you can write to"
    )


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits.

    Args:
        path: A file.

    Raises:
        TfpruneError: It does not exist.
        UsageError: It is a directory.
    """
    with existing_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | os.PathLike[str]) -> Path:
    """A path that something is at.

    Raises:
        TfpruneError: Nothing is.
    """
    try:
        there = Path(path).exists()
    except OSError as error:
        raise TfpruneError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if not there:
        raise TfpruneError(f"{path} does not exist: check the path, or export the model first")
    return Path(path)


def existing_file(path: str | os.PathLike[str]) -> Path:
    """A path that a file is at.

    Raises:
        TfpruneError: Nothing is.
        UsageError: A directory is.
    """
    found = existing(path)
    if found.is_dir():
        raise UsageError(f"{path} is a directory: pack it as a .tar.gz first")
    return found
