"""Finished results at an address that many machines reach, one object each.

Only this module imports fsspec, which is part of the extra `cluster`.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from tfprune.archives import pack, unpack
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.files import partial_folder

SUFFIX = ".tar.gz"
"""Of the name of each object."""
# An object of these appears whole or not at all. A file of other systems grows while it is
# written, so it is written under another name and moved.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "ocilake", "oss"})
_ROOT = "result"
_ADVICE = "give --store an address that you can read and write, and fsspec the keys for it"


class SharedStore:
    """Finished results of one run, at an address.

    The name of an object holds the identity of its result, and an object appears whole. So no lock
    is needed: two machines that make the same result put the same thing.

    Example:
        ```python
        shared = SharedStore("s3://bucket/runs", "digits")
        shared.check()
        shared.put(Path("saved_models/digits/steps/dense-3f2a"), "step/dense/seed-0-3f2a.tar.gz")
        ```

    Args:
        address: of fsspec, such as "s3://bucket/runs" or "file:///mnt/runs", or a path.
        run: the name of the run; its objects lie below it.

    Attributes:
        address: as it holds in every working directory.

    Raises:
        UsageError: fsspec or the package of the protocol is missing, the protocol is unknown, or
            the address holds a password.
        TfpruneError: nothing answers there.
    """

    def __init__(self, address: str | os.PathLike[str], run: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise UsageError("--store needs fsspec: pip install 'tfprune[cluster]'") from None
        given = os.fspath(address)
        protocol = given.partition("://")[0] if "://" in given else "file"
        if not given:
            raise UsageError("--store is empty: give a folder, or an address such as s3://bucket")
        if re.match(r"[a-z][a-z0-9+]+:/(?!/)", given):
            raise UsageError(
                f"--store {given} is not an address: give one with '://', such as s3://bucket, or "
                "a folder"
            )
        if _holds_password(given):
            raise UsageError(
                f"the address of --store ({protocol}://…) holds a password, which the record of "
                "the run would show: give it to fsspec by "
                f"FSSPEC_{protocol.upper()}_PASSWORD or a file in ~/.config/fsspec"
            )
        try:
            self._files, root = fsspec.core.url_to_fs(given)
        except ImportError as error:
            raise UsageError(
                f"--store {given} needs a package that is not here ({one_line(error)}): install "
                "it on all machines"
            ) from error
        except ValueError as error:
            raise UsageError(
                f"--store {given} cannot be ({one_line(error)}): give a folder, or an address of "
                "fsspec such as s3://bucket/runs"
            ) from error
        # Each file system has errors of its own.
        except Exception as error:
            raise TfpruneError(f"{_failed(given, 'reached', error)}: {_ADVICE}") from error
        own = self._files.protocol
        protocols = {own} if isinstance(own, str) else set(own)
        self.address = f"file://{root}" if "file" in protocols else given.rstrip("/")
        self._is_whole = bool(protocols & _WHOLE)
        self._root = f"{root.rstrip('/')}/{run}"
        self._run = run

    @property
    def is_of_this_process(self) -> bool:
        """Whether no other process sees it."""
        return self.address.startswith("memory:")

    def url(self, name: str) -> str:
        """Where an object lies, for people."""
        return f"{self.address}/{self._run}/{name}"

    def check(self) -> None:
        """Writes, reads and removes a small object.

        Raises:
            TfpruneError: one of these cannot be done.
        """
        path = self._path(f".writable-{uuid.uuid4().hex[:12]}")
        try:
            # A file that is there is replaced, as a damaged one has to be.
            for content in (b"written", b"replaced"):
                self._write(path, content)
            self._files.invalidate_cache()
            is_same = self._files.cat_file(path) == content
            self._files.rm_file(path)
        except Exception as error:
            raise TfpruneError(f"{_failed(self.address, 'written', error)}: {_ADVICE}") from error
        if not is_same:
            raise TfpruneError(
                f"{self.address} does not give back what was written there: give --store another "
                "address"
            )

    def names(self) -> dict[str, int | None]:
        """The names of all objects of the run, with their bytes where these are known.

        Raises:
            TfpruneError: they cannot be listed.
        """
        try:
            # What another machine has put since is not in a list that is remembered.
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise TfpruneError(f"{_failed(self.address, 'listed', error)}: {_ADVICE}") from error
        below = self._root.strip("/") + "/"
        return {
            path.strip("/").removeprefix(below): about.get("size")
            for path, about in found.items()
            if path.endswith(SUFFIX)
        }

    def put(self, folder: Path, name: str) -> None:
        """Puts a finished result there, in the place of what has its name.

        Args:
            folder: of the result.
            name: of the object.

        Raises:
            TfpruneError: it cannot be written.
        """
        try:
            with partial_folder(folder.parent) as room:
                archive = room / f"object{SUFFIX}"
                # Weights hardly shrink, and what does not shrink cannot grow beyond limits.
                pack(folder, archive, _ROOT, level=0)
                self._write(self._path(name), archive)
        except Exception as error:
            raise TfpruneError(_failed(self.url(name), "written", error)) from error

    def get(self, name: str, room: Path) -> Path | None:
        """Fetches a result.

        Args:
            name: of the object.
            room: an empty folder on this machine.

        Returns:
            The folder of the result, inside `room`; None where there is no such object.

        Raises:
            TfpruneError: it cannot be read, or it is damaged.
            OSError: this machine cannot write it.
        """
        archive, unpacked = room / f"object{SUFFIX}", room / "unpacked"
        try:
            self._files.invalidate_cache()
            self._files.get_file(self._path(name), str(archive))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise TfpruneError(_failed(self.url(name), "read", error)) from error
        unpacked.mkdir()
        try:
            unpack(archive, unpacked)
        except TfpruneError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno is not None:
                # Of this machine, such as a full disk: the object may be whole.
                raise cause from None
            raise TfpruneError(f"{self.url(name)} is damaged, or unsafe to unpack") from error
        archive.unlink()
        result = unpacked / _ROOT
        if not result.is_dir():
            raise TfpruneError(f"{self.url(name)} is not the result of a task")
        return result

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _write(self, path: str, content: bytes | Path) -> None:
        """Writes an object so that it appears whole."""
        files = self._files
        unfinished = path if self._is_whole else f"{path}.{uuid.uuid4().hex[:12]}.partial"
        try:
            # Where folders are only parts of names, this would make a bucket that is not there.
            if not self._is_whole:
                files.makedirs(files._parent(path), exist_ok=True)
            if isinstance(content, bytes):
                files.pipe_file(unfinished, content)
            else:
                files.put_file(str(content), unfinished)
            if not self._is_whole:
                files.mv(unfinished, path)
                if files.exists(unfinished):
                    raise OSError(f"{path} cannot be replaced by a file under another name")
        except Exception:
            if not self._is_whole:
                with contextlib.suppress(Exception):
                    files.rm_file(unfinished)
            raise


def _holds_password(address: str) -> bool:
    try:
        return "://" in address and urlsplit(address).password is not None
    except ValueError:
        # fsspec will tell what it is.
        return False


def _failed(where: str, what: str, error: Exception) -> str:
    said = getattr(error, "strerror", None) or one_line(error)
    return f"{where} cannot be {what} ({said})"
