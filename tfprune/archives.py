"""Packs archives, and opens those of others, and stops where they grow too large.

A few kilobytes can unpack to gigabytes, and what describes the members of an archive is unpacked
before any limit on members is looked at. So every stream is counted as it is read, and headers
have limits of their own.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tfprune.errors import TfpruneError, UsageError, one_line

ARCHIVES = (".tar.gz", ".tgz", ".tar.zst")
# The highest level that needs no more memory to unpack.
ZSTD_LEVEL = 19
# Far above any CNN, far below any disk.
MOST_BYTES = 8 << 30
HDF5 = b"\x89HDF\r\n\x1a\n"
"""How a file of HDF5 begins."""
# A SavedModel has five files, and some more for each vocabulary.
MOST_MEMBERS = 2_000
# Weights of which 99 in 100 are zero shrink to a sixtieth; a bomb is a thousand times its size.
MOST_GROWTH = 100
# So much any archive may hold, however small it is.
FREE_BYTES = 64 << 20
# Python needs twenty times as much for JSON of nothing but brackets; a thousand layers take 2 MiB.
MOST_JSON = 10 << 20
_MOST_NAME = 4096
_MOST_DEPTH = 32
_BLOCK = tarfile.BLOCKSIZE
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
# A member has one long name or one of pax; links, which have one more, are refused anyway.
_MOST_HEADERS = 4
# The decompressor keeps a window of what it wrote; the largest that zstd reads by itself.
_ZSTD_WINDOW = 1 << 27


def pack(directory: Path, archive: Path, root: str) -> None:
    """Packs a directory, the same bytes for the same files.

    Names are sorted; owners, times and permissions of this machine are left out.

    Args:
        directory: What to pack.
        archive: The `.tar.gz` or `.tar.zst` to write; its name decides.
        root: Name of the top folder inside the archive.

    Raises:
        UsageError: It is a `.tar.zst` and zstandard is not installed.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(archive.open("wb"))
        compressed = stack.enter_context(_compressing(file, archive.suffix))
        tar = stack.enter_context(
            tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT)
        )
        for path in [directory, *sorted(directory.rglob("*"))]:
            name = Path(root, path.relative_to(directory)).as_posix()
            member = tarfile.TarInfo(name)
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                member.size = path.stat().st_size
                with path.open("rb") as content:
                    tar.addfile(member, content)


def _compressing(file: IO[bytes], suffix: str) -> Any:
    if suffix != ".zst":
        # gzip.open cannot leave out the time and the file's name, both of which are in the header.
        return gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0)
    try:
        import zstandard
    except ImportError:
        raise UsageError("a .tar.zst needs zstandard: pip install zstandard") from None
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file, closefd=False)


def unpack(archive: Path, directory: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpacks an archive that holds files and directories only.

    Python's `tarfile` reads names of any length into memory, with regular expressions that take
    the square of it; here a member's name has 4,096 bytes at most.

    Args:
        archive: A `.tar.gz` or `.tar.zst` file.
        directory: An existing, empty directory.
        most_bytes: What the files in it may come to.

    Raises:
        TfpruneError: It is no such archive, is cut short, grows beyond the limit, or holds links,
            devices, or paths that lead out of the directory or are too deep.
        UsageError: It is a `.tar.zst` and zstandard is not installed.
    """
    most = min(most_bytes, _grown(archive.stat().st_size))
    made: set[Path] = set()
    try:
        with _decompressed(archive) as file:
            stream = _Stream(file, archive, most)
            for member in _members(stream, archive):
                if member.size > stream.left:
                    raise stream.too_large()
                _extract(stream, member, archive, directory, made)
            # The checksum stands at the end, behind what tar reads.
            while stream.read_some():
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _damaged(archive, error) from error


def check_archive(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Refuses a model's file that would take much more memory than it has bytes.

    Of a `.keras` file the members, its JSON and the tensors of its weights are looked at, of an
    `.h5` file the tensors; a file goes by its content, whatever its name. Nothing is unpacked into
    memory. Files of other kinds pass.

    Args:
        path: A file that somebody gave.
        most_bytes: What it may unpack to.

    Raises:
        TfpruneError: It is none of its kind, is cut short, or grows beyond the limits.
    """
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:
            _check_h5(file, path, most_bytes)
            return
    if zipfile.is_zipfile(path):
        check_zip(path, most_bytes)


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
            most = min(most_bytes, _grown(path.stat().st_size))
            total = sum(member.file_size for member in members)
            if total > most or len(members) > MOST_MEMBERS:
                raise _unsafe(path, f"more than {most:,} bytes or too many files")
            for member in members:
                if member.filename.endswith(".json") and member.file_size > MOST_JSON:
                    raise _unsafe(path, f"{member.filename} has more than {MOST_JSON:,} bytes")
            for member in members:
                if member.filename.endswith(".h5"):
                    with _unzipped(file, member) as content:
                        _check_h5(content, path, most)
    # zlib and zipfile have no class in common, nor one for methods that they do not know.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise TfpruneError(
            f"{path} is no .keras file, or is cut short: export or copy it again"
        ) from error


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


def _grown(size: int) -> int:
    """Bytes that a file of a size may unpack to."""
    return max(FREE_BYTES, MOST_GROWTH * size)


class _Stream:
    """What a decompressor gives, counted."""

    def __init__(self, file: IO[bytes], archive: Path, most: int) -> None:
        self._file = file
        self._archive = archive
        self._most = self.left = most

    def read(self, size: int) -> bytes:
        """So many bytes; EOFError where there are fewer."""
        parts, missing = [], size
        while missing and (part := self._file.read(missing)):
            parts.append(part)
            missing -= len(part)
        self.left -= size
        if self.left < 0:
            raise self.too_large()
        if missing:
            raise EOFError("unexpected end of data")
        return b"".join(parts)

    def read_some(self) -> bool:
        """Whether there was more."""
        got = len(self._file.read(1 << 20))
        self.left -= got
        if self.left < 0:
            raise _unsafe(self._archive, "endless padding")
        return got > 0

    def too_large(self) -> TfpruneError:
        return _unsafe(self._archive, f"more than {self._most:,} bytes")


def _members(stream: _Stream, archive: Path) -> Iterator[tarfile.TarInfo]:
    """Each file and directory; whoever asks for the next one has read the content of the last."""
    count = headers = 0
    name: str | None = None
    while (block := stream.read(_BLOCK)).strip(b"\0"):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.size < 0:
            raise tarfile.HeaderError("negative size")
        if member.type in (*_PAX, tarfile.XGLTYPE, _LONG_NAME, _LONG_LINK):
            headers += 1
            if member.size > 2 * _MOST_NAME or headers > _MOST_HEADERS:
                raise _unsafe(archive, f"names of more than {_MOST_NAME:,} bytes")
            said = stream.read(_padded(member.size))[: member.size]
            if member.type == _LONG_NAME:
                name = said.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif member.type in _PAX:
                name = _pax_path(said, archive) or name
            continue
        count, headers = count + 1, 0
        if count > MOST_MEMBERS:
            raise _unsafe(archive, "too many files")
        member.name, name = name or member.name, None
        if member.type not in _PLAIN:
            raise _unsafe(archive, f"{member.name[:80]!r} is a link or a device")
        if member.isdir():
            member.size = 0
        yield member


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pax_path(said: bytes, archive: Path) -> str | None:
    """The path in a pax header: records of "LENGTH KEY=VALUE", LENGTH counting all of a record."""
    found = None
    while said:
        length, _, _ = said[:8].partition(b" ")
        if not length.isdigit() or not len(length) + 2 < int(length) <= len(said):
            raise tarfile.HeaderError("invalid pax header")
        key, _, value = said[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            found = value.decode("utf-8", "surrogateescape")
        # They would change what follows.
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise _unsafe(archive, "a sparse or huge file")
        said = said[int(length) :]
    return found


def _extract(
    stream: _Stream, member: tarfile.TarInfo, archive: Path, directory: Path, made: set[Path]
) -> None:
    """Writes a file or makes a folder."""
    root = directory.resolve()
    relative = PurePosixPath(member.name.lstrip("/"))
    if (
        "\0" in member.name
        or len(os.fsencode(member.name)) > _MOST_NAME
        or len(relative.parts) > _MOST_DEPTH
    ):
        raise _unsafe(archive, f"{member.name[:40]!r}… is too long, or too deep")
    target = Path(root, relative).resolve()
    if not target.is_relative_to(root):
        raise _unsafe(archive, f"{member.name!r} leads out of the archive")
    folder = target if member.isdir() else target.parent
    made |= {folder, *(each for each in folder.parents if each.is_relative_to(root))}
    if len(made) > MOST_MEMBERS:
        raise _unsafe(archive, "too many files")
    folder.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        return
    left = member.size
    with target.open("wb") as file:
        while left:
            part = stream.read(min(left, 1 << 20))
            file.write(part)
            left -= len(part)
    stream.read(_padded(member.size) - member.size)


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
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        with archive.open("rb") as raw, decompressor.stream_reader(raw) as file:
            yield file
    except zstandard.ZstdError as error:
        raise _damaged(archive, error) from error


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        part = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


@contextlib.contextmanager
def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[Any]:
    """A member as a file that seeks: zipfile itself reads from the start at each step back."""
    if member.compress_type == zipfile.ZIP_STORED and archive.filename:
        if member.compress_size != member.file_size:
            raise zipfile.BadZipFile("sizes differ")
        # It checks the local header, behind which the content starts.
        with archive.open(member), Path(archive.filename).open("rb") as file:
            file.seek(member.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            start = member.header_offset + 30 + name + extra
            yield _Part(file, start, member.file_size)
        return
    with tempfile.TemporaryFile(prefix="tfprune-") as file, archive.open(member) as content:
        shutil.copyfileobj(content, file)
        yield file


def _check_h5(file: Any, path: Path, most: int) -> None:
    """Refuses tensors that are larger than the file, or that lie outside it."""
    import h5py

    total = 0

    def count(name: str, found: Any) -> None:
        nonlocal total
        if not isinstance(found, h5py.Dataset):
            return
        if found.is_virtual or found.external:
            raise _unsafe(path, f"{name} lies in another file")
        total += math.prod(found.shape or ()) * found.dtype.itemsize
        if total > most:
            raise _unsafe(path, f"tensors of more than {most:,} bytes")

    try:
        weights = h5py.File(file, "r")
    except OSError:
        # Whoever loads it says so, and what to do.
        return
    try:
        with weights:
            weights.visititems(count)
    # h5py raises whatever the damaged part raises.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise TfpruneError(
            f"{path} holds damaged weights ({one_line(error)}): export or copy it again"
        ) from error


def _unsafe(archive: Path, why: str) -> TfpruneError:
    return TfpruneError(f"{archive} holds an unsafe member ({why}): do not trust this file")


def _damaged(archive: Path, error: Exception) -> TfpruneError:
    return TfpruneError(
        f"{archive} cannot be unpacked ({one_line(error)}): export or copy it again"
    )
