"""Writes files atomically: a file is complete or does not exist."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tfprune.errors import TfpruneError, UsageError

# The description of a run in its folder: the pipeline writes it, the report reads it.
RECORD = "record.json"
# Suffixes of files with a whole Keras model.
MODEL_FILES = (".keras", ".h5", ".hdf5")
PARTIAL = ".partial-"
CACHE_VARIABLE = "TFPRUNE_CACHE_DIR"
_LOCK = ".lock"
_ABANDONED_SECONDS = 3600


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes a text file atomically: another process reads the old or the new content.

    Example:
        ```python
        write_text("out/table.md", "| variant | size |")
        ```

    Args:
        path: the file; its directory is created if it is missing.
        text: the whole content.

    Returns:
        The path.

    Raises:
        TfpruneError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(path.parent) as partial:
            new = partial / path.name
            new.write_text(text, encoding="utf-8")
            new.replace(path)
    except OSError as error:
        raise _unwritable_error(path, error) from error
    return path


@contextlib.contextmanager
def partial_folder(directory: Path) -> Iterator[Path]:
    """A temporary folder for unfinished files; it is removed at the end of the context.

    Example:
        ```python
        with partial_folder(path.parent) as folder:
            model.save(folder / path.name)
            (folder / path.name).replace(path)
        ```

    The folder is in the directory of the finished files, since a rename is atomic only within one
    file system. A killed process leaves it behind, but the system releases its lock, so that
    `sweep` can remove it.

    Args:
        directory: an existing directory.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=PARTIAL) as partial:
        lock = FileLock(Path(partial, _LOCK))
        with lock:
            yield Path(partial)


def sweep(directory: Path) -> None:
    """Removes the partial folders of killed processes; those of running processes stay.

    Example:
        ```python
        sweep(Path("runs/digits"))
        ```

    Args:
        directory: the directory with the partial folders. Folders that cannot be removed stay.
    """
    for folder in directory.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError, Timeout):
            if not folder.is_dir() or folder.is_symlink():
                continue
            if (folder / _LOCK).exists():
                with FileLock(folder / _LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
            # A folder has no lock just after its creation, or if an older tfprune created it.
            elif time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def cache_directory() -> Path:
    """The folder for what can be made again: TFPRUNE_CACHE_DIR, else the user's cache directory.

    Example:
        ```python
        cache_directory()  # Path("/home/me/.cache/tfprune")
        ```

    Anybody may delete it.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return base.expanduser() / "tfprune"
    # A user of a container may have no home.
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "tfprune"


def write_json(path: str | os.PathLike[str], document: Any) -> Path:
    """Writes a JSON file atomically, as `write_text`.

    Example:
        ```python
        write_json("out/figures.json", {"accuracy": 0.91})
        ```
    """
    return write_text(path, json.dumps(document, indent=2) + "\n")


def strict_json(document: Any) -> str:
    """A document as JSON that every reader takes: null for what is missing or not a number.

    Example:
        ```python
        strict_json([0.5, float("nan")])  # a list of 0.5 and null
        ```

    Args:
        document: Dicts, lists and plain values, of NumPy too.

    Returns:
        The text, indented, without a newline at its end.
    """
    return json.dumps(_known(document), indent=2, allow_nan=False)


def _known(value: Any) -> Any:
    """A value without the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    plain = value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Example:
        ```python
        read_json("out/figures.json")  # {"accuracy": 0.91}
        ```

    Raises:
        TfpruneError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TfpruneError(
            f"{path} cannot be read ({error.strerror}): check the path, or create the file first"
        ) from error
    # Endless nesting is damage too.
    except (ValueError, RecursionError) as error:
        raise TfpruneError(f"{path} is damaged: delete it and run again") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Checks that a file can be written, before the work whose result it will hold.

    Example:
        ```python
        check_writable("out/slim.keras")
        ```

    It writes a small file to the same folder and removes it. It does not create missing folders.

    Raises:
        UsageError: the path is a folder, or the name is not a valid file name.
        TfpruneError: the file cannot be written.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a directory: give the name of a file")
        _try_writing(path.parent, path.name)
    except OSError as error:
        raise _unwritable_error(path, error) from error


def check_folder(path: str | os.PathLike[str]) -> None:
    """Checks that files can be written to a folder, as `check_writable`.

    Example:
        ```python
        check_folder("runs/digits")
        ```

    Raises:
        TfpruneError: no file can be written there.
    """
    path = Path(path)
    try:
        _try_writing(path, "file")
    except OSError as error:
        raise _unwritable_error(path, error) from error


def _try_writing(folder: Path, name: str) -> None:
    try:
        str(folder / name).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{os.fsencode(folder / name).decode(errors='replace')} is not a name in UTF-8, which "
            "libraries that write files need: choose another name"
        ) from None
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial,
        Path(partial, name).open("wb") as file,
    ):
        # On a full disk an empty file can be created, but not written.
        file.write(bytes(1 << 12))
        file.flush()
        os.fsync(file.fileno())


def _unwritable_error(path: Path, error: OSError) -> TfpruneError:
    return TfpruneError(
        f"{path} cannot be written ({error.strerror}): give a place you can write to"
    )


def document_hash(document: Any) -> str:
    """A short name for a JSON document: equal documents, equal names.

    Example:
        >>> document_hash({"seed": 0, "epochs": 3}) == document_hash({"epochs": 3, "seed": 0})
        True

    Args:
        document: what JSON can hold; anything else counts as its text.

    Returns:
        12 hexadecimal digits.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits.

    Example:
        ```python
        sha256("slim.tflite")  # "9f86d0818..."
        ```

    Args:
        path: a file.

    Raises:
        TfpruneError: the file does not exist.
        UsageError: the path is a directory.
    """
    with existing_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | os.PathLike[str]) -> Path:
    """Converts to a path and checks that it exists.

    Example:
        ```python
        existing("slim.keras")  # Path("slim.keras")
        ```

    Raises:
        TfpruneError: the path does not exist.
    """
    try:
        exists = Path(path).exists()
    except OSError as error:
        raise TfpruneError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if not exists:
        raise TfpruneError(f"{path} does not exist: check the path, or export the model first")
    return Path(path)


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Converts to a path and checks that it is a file.

    Example:
        ```python
        existing_file("slim.keras")  # Path("slim.keras")
        ```

    Raises:
        TfpruneError: the path does not exist.
        UsageError: the path is a directory.
    """
    file = existing(path)
    if file.is_dir():
        raise UsageError(f"{path} is a directory: pack it as a .tar.gz first")
    return file
