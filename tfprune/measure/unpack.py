"""Unpacks an archive that somebody else may have made, and stops where it grows too large."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError, UsageError
from tfprune.measure.interface import one_line

ARCHIVES = (".tar.gz", ".tgz", ".tar.zst")
# Far above any CNN, far below any disk.
MOST_BYTES = 8 << 30
MOST_MEMBERS = 10_000


def unpack(archive: Path, directory: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpacks an archive that holds files and directories only.

    Args:
        archive: A `.tar.gz` or `.tar.zst` file.
        directory: An existing, empty directory.
        most_bytes: What the files in it may come to.

    Raises:
        TfpruneError: It is no such archive, is cut short, grows beyond the limit, or holds links,
            devices or paths that lead out of the directory.
        UsageError: It is a `.tar.zst` and zstandard is not installed.
    """
    left, members = most_bytes, 0
    try:
        with _decompressed(archive) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise _unsafe(archive, f"{member.name!r} is a link or a device")
                left, members = left - member.size, members + 1
                if left < 0 or members > MOST_MEMBERS:
                    raise _unsafe(archive, f"more than {most_bytes:,} bytes or too many files")
                _extract(tar, member, archive, directory)
            # The checksum stands at the end, behind what tar reads.
            while chunk := file.read(1 << 20):
                left -= len(chunk)
                if left < 0:
                    raise _unsafe(archive, "endless padding")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _damaged(archive, error) from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, directory: Path) -> None:
    """Writes a file or makes a folder; tarfile's own filters are newer than Python 3.11.2."""
    root = directory.resolve()
    target = Path(root, member.name.lstrip("/")).resolve()
    if not target.is_relative_to(root):
        raise _unsafe(archive, f"{member.name!r} leads out of the archive")
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    # None only for what is no file.
    assert content is not None
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


def check_zip(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Refuses a zip file, such as a `.keras` file, that would grow too large.

    Args:
        path: The file.
        most_bytes: What its members may come to, by their own headers, which reading goes by.

    Raises:
        TfpruneError: It is no zip file, is cut short, or grows beyond the limit.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise TfpruneError(
            f"{path} is no .keras file, or is cut short: export or copy it again"
        ) from error
    if sum(member.file_size for member in members) > most_bytes or len(members) > MOST_MEMBERS:
        raise _unsafe(path, f"more than {most_bytes:,} bytes or too many files")


def saved_model_root(directory: Path) -> Path:
    """The one directory at or below `directory` that holds a SavedModel.

    Args:
        directory: Where to look.

    Raises:
        TfpruneError: There is none, or more than one.
    """
    roots = sorted(found.parent for found in directory.rglob("saved_model.pb"))
    if len(roots) != 1:
        raise TfpruneError(
            f"{len(roots)} SavedModels found, one expected: "
            "give a directory or archive with exactly one saved_model.pb"
        )
    return roots[0]


@contextlib.contextmanager
def _decompressed(archive: Path) -> Iterator[Any]:
    if archive.suffix != ".zst":
        with gzip.open(archive) as file:
            yield file
        return
    try:
        import zstandard
    except ImportError:
        raise UsageError(f"{archive} needs zstandard: pip install zstandard") from None
    try:
        with archive.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as file:
            yield file
    except zstandard.ZstdError as error:
        raise _damaged(archive, error) from error


def _unsafe(archive: Path, why: str) -> TfpruneError:
    return TfpruneError(f"{archive} holds an unsafe member ({why}): do not trust this file")


def _damaged(archive: Path, error: Exception) -> TfpruneError:
    return TfpruneError(
        f"{archive} cannot be unpacked ({one_line(error)}): export or copy it again"
    )
