"""Packs archives, and unpacks archives that may be hostile, with limits on their size.

A few kilobytes can unpack to gigabytes, and the headers of an archive are unpacked before a limit
on its members can be checked. Therefore every stream is counted while it is read, and headers have
their own limits.
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
GZIP_LEVEL = 9
# Higher levels need more memory for unpacking.
ZSTD_LEVEL = 19
# More than any CNN needs, and less than a disk holds.
MOST_BYTES = 8 << 30
HDF5 = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""
# A SavedModel has five files and a few more for each vocabulary.
MOST_MEMBERS = 2_000
# Weights with 99 % zeros shrink to 1/60 of their size; a zip bomb shrinks to 1/1000.
MOST_GROWTH = 100
# Bytes that every archive may unpack to, regardless of its own size.
FREE_BYTES = 64 << 20
# A model with a thousand layers has 2 MiB of JSON. Python needs up to twenty times as much memory.
MOST_JSON = 10 << 20
_MOST_NAME = 4096
_MOST_DEPTH = 32
_BLOCK = tarfile.BLOCKSIZE
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
# A member has at most one header with a long name; links, which may have two, are refused.
_MOST_HEADERS = 4
# The largest window of output in memory that zstd accepts by default.
_ZSTD_WINDOW = 1 << 27


def pack(directory: Path, archive: Path, root: str, *, level: int | None = None) -> None:
    """Packs a directory; equal files give equal bytes.

    Example:
        ```python
        pack(Path("savedmodel"), Path("slim.tar.gz"), root="slim")
        ```

    Names are sorted; owners, times and permissions are left out.

    Args:
        directory: the directory to pack.
        archive: the `.tar.gz` or `.tar.zst` to write; the suffix decides the compression.
        root: the name of the top folder inside the archive.
        level: of the compression; 0 stores a `.tar.gz` as it is, with a checksum. None for the
            level with which artifacts are compressed.

    Raises:
        UsageError: the archive is a `.tar.zst` and zstandard is not installed.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(archive.open("wb"))
        compressed = stack.enter_context(_compressing(file, archive.suffix, level))
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


def _compressing(file: IO[bytes], suffix: str, level: int | None) -> Any:
    if suffix != ".zst":
        # gzip.open always writes the time and the name of the file into the header.
        level = GZIP_LEVEL if level is None else level
        return gzip.GzipFile("", "wb", compresslevel=level, fileobj=file, mtime=0)
    try:
        import zstandard
    except ImportError:
        raise UsageError("a .tar.zst needs zstandard: pip install zstandard") from None
    level = ZSTD_LEVEL if level is None else level
    return zstandard.ZstdCompressor(level=level).stream_writer(file, closefd=False)


def unpack(archive: Path, directory: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpacks an archive of files and directories.

    Example:
        ```python
        unpack(Path("savedmodel.tar.gz"), Path("empty-folder"))
        ```

    Python's `tarfile` reads names of any length into memory and parses them in quadratic time; here
    the name of a member has at most 4,096 bytes.

    Args:
        archive: a `.tar.gz` or `.tar.zst` file.
        directory: an existing, empty directory.
        most_bytes: the largest number of bytes that the archive may unpack to.

    Raises:
        TfpruneError: the file is not such an archive, is cut short, unpacks to more than the limit,
            or holds links, devices, or paths that leave the directory or are too deep.
        UsageError: the file is a `.tar.zst` and zstandard is not installed.
    """
    most = min(most_bytes, _most_unpacked(archive.stat().st_size))
    made: set[Path] = set()
    try:
        with _decompressed(archive) as file:
            stream = _Stream(file, archive, most)
            for member in _members(stream, archive):
                if member.size > stream.left:
                    raise stream.too_large()
                _extract(stream, member, archive, directory, made)
            # The checksum is at the end, after the last block that tar needs.
            while stream.read_some():
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _damaged_error(archive, error) from error


def check_archive(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Refuses a model file that needs much more memory than it has bytes.

    Example:
        ```python
        check_archive(Path("model.keras"))
        ```

    It checks the members, the JSON and the weight tensors of a `.keras` file, and the tensors of an
    `.h5` file. The content of a file decides which type it has, not its name. Nothing is unpacked
    into memory. Files of other types pass.

    Args:
        path: a file of unknown origin.
        most_bytes: the largest number of bytes that the file may unpack to.

    Raises:
        TfpruneError: the file is damaged, is cut short, or unpacks to more than the limits.
    """
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:
            _check_h5(file, path, most_bytes)
            return
    if zipfile.is_zipfile(path):
        check_zip(path, most_bytes)


def check_zip(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Refuses a zip file, such as a `.keras` file, that unpacks to too many bytes.

    Example:
        ```python
        check_zip(Path("model.keras"))
        ```

    Args:
        path: the file.
        most_bytes: the largest sum of the sizes in the headers of its members; zipfile never reads
            more than a header says.

    Raises:
        TfpruneError: the file is not a zip file, is cut short, or unpacks to more than the limit.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            most = min(most_bytes, _most_unpacked(path.stat().st_size))
            total = sum(member.file_size for member in members)
            if total > most or len(members) > MOST_MEMBERS:
                raise _unsafe_error(path, f"more than {most:,} bytes or too many files")
            for member in members:
                if member.filename.endswith(".json") and member.file_size > MOST_JSON:
                    raise _unsafe_error(
                        path, f"{member.filename} has more than {MOST_JSON:,} bytes"
                    )
            for member in members:
                if member.filename.endswith(".h5"):
                    with _unzipped(file, member) as content:
                        _check_h5(content, path, most)
    # The errors of zlib and zipfile have no common base, and unknown methods raise others.
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
            f"{path} is not a .keras file, or is cut short: export or copy it again"
        ) from error


def saved_model_root(directory: Path) -> Path:
    """The only directory, at or below a directory, that holds a SavedModel.

    Example:
        ```python
        saved_model_root(Path("unpacked"))  # Path("unpacked/savedmodel")
        ```

    Args:
        directory: where to search.

    Raises:
        TfpruneError: there is no SavedModel, or more than one.
    """
    roots = sorted(path.parent for path in directory.rglob("saved_model.pb"))
    if len(roots) != 1:
        raise TfpruneError(
            f"{len(roots)} SavedModels found, one expected: "
            "give a directory or archive with exactly one saved_model.pb"
        )
    return roots[0]


def _most_unpacked(size: int) -> int:
    """The bytes that a file of this size may unpack to."""
    return max(FREE_BYTES, MOST_GROWTH * size)


class _Stream:
    """Reads from a decompressor and counts the bytes."""

    def __init__(self, file: IO[bytes], archive: Path, most: int) -> None:
        self._file = file
        self._archive = archive
        self._most = self.left = most

    def read(self, size: int) -> bytes:
        """Reads this number of bytes.

        Raises:
            EOFError: the stream has fewer bytes.
        """
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
        """Reads up to 1 MiB; returns whether there was any."""
        count = len(self._file.read(1 << 20))
        self.left -= count
        if self.left < 0:
            raise _unsafe_error(self._archive, "endless padding")
        return count > 0

    def too_large(self) -> TfpruneError:
        return _unsafe_error(self._archive, f"more than {self._most:,} bytes")


def _members(stream: _Stream, archive: Path) -> Iterator[tarfile.TarInfo]:
    """Each file and directory; the caller reads the content of one before it asks for the next."""
    count = headers = 0
    name: str | None = None
    while (block := stream.read(_BLOCK)).strip(b"\0"):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.size < 0:
            raise tarfile.HeaderError("negative size")
        if member.type in (*_PAX, tarfile.XGLTYPE, _LONG_NAME, _LONG_LINK):
            headers += 1
            if member.size > 2 * _MOST_NAME or headers > _MOST_HEADERS:
                raise _unsafe_error(archive, f"names of more than {_MOST_NAME:,} bytes")
            content = stream.read(_padded(member.size))[: member.size]
            if member.type == _LONG_NAME:
                name = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif member.type in _PAX:
                name = _pax_path(content, archive) or name
            continue
        count, headers = count + 1, 0
        if count > MOST_MEMBERS:
            raise _unsafe_error(archive, "too many files")
        member.name, name = name or member.name, None
        if member.type not in _PLAIN:
            raise _unsafe_error(archive, f"{member.name[:80]!r} is a link or a device")
        if member.isdir():
            member.size = 0
        yield member


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pax_path(header: bytes, archive: Path) -> str | None:
    """The path in a pax header, whose records are "LENGTH KEY=VALUE"; LENGTH is of the record."""
    path = None
    while header:
        length, _, _ = header[:8].partition(b" ")
        if not length.isdigit() or not len(length) + 2 < int(length) <= len(header):
            raise tarfile.HeaderError("invalid pax header")
        key, _, value = header[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            path = value.decode("utf-8", "surrogateescape")
        # These keys change how the content must be read.
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise _unsafe_error(archive, "a sparse or huge file")
        header = header[int(length) :]
    return path


def _extract(
    stream: _Stream, member: tarfile.TarInfo, archive: Path, directory: Path, made: set[Path]
) -> None:
    """Writes a file or creates a folder."""
    root = directory.resolve()
    relative = PurePosixPath(member.name.lstrip("/"))
    if (
        "\0" in member.name
        or len(os.fsencode(member.name)) > _MOST_NAME
        or len(relative.parts) > _MOST_DEPTH
    ):
        raise _unsafe_error(archive, f"{member.name[:40]!r}… is too long, or too deep")
    target = Path(root, relative).resolve()
    if not target.is_relative_to(root):
        raise _unsafe_error(archive, f"{member.name!r} leads out of the archive")
    folder = target if member.isdir() else target.parent
    made |= {folder, *(parent for parent in folder.parents if parent.is_relative_to(root))}
    if len(made) > MOST_MEMBERS:
        raise _unsafe_error(archive, "too many files")
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
        raise _damaged_error(archive, error) from error


class _FileSlice(io.RawIOBase):
    """A part of a file that is read like a file."""

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
    """A member as a file that can seek; zipfile would read from the start for each step back."""
    if member.compress_type == zipfile.ZIP_STORED and archive.filename:
        if member.compress_size != member.file_size:
            raise zipfile.BadZipFile("sizes differ")
        # zipfile checks the local header; the content starts after it.
        with archive.open(member), Path(archive.filename).open("rb") as file:
            file.seek(member.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            start = member.header_offset + 30 + name + extra
            yield _FileSlice(file, start, member.file_size)
        return
    with tempfile.TemporaryFile(prefix="tfprune-") as file, archive.open(member) as content:
        shutil.copyfileobj(content, file)
        yield file


def _check_h5(file: Any, path: Path, most: int) -> None:
    """Refuses tensors that are too large for the file, or that are in another file."""
    import h5py

    total = 0

    def count(name: str, member: Any) -> None:
        nonlocal total
        if not isinstance(member, h5py.Dataset):
            return
        if member.is_virtual or member.external:
            raise _unsafe_error(path, f"{name} is in another file")
        total += math.prod(member.shape or ()) * member.dtype.itemsize
        if total > most:
            raise _unsafe_error(path, f"tensors of more than {most:,} bytes")

    try:
        weights = h5py.File(file, "r")
    except OSError:
        # The loader reports such a file.
        return
    try:
        with weights:
            weights.visititems(count)
    # A damaged part may raise any of these in h5py.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise TfpruneError(
            f"{path} holds damaged weights ({one_line(error)}): export or copy it again"
        ) from error


def _unsafe_error(archive: Path, why: str) -> TfpruneError:
    return TfpruneError(f"{archive} holds an unsafe member ({why}): do not trust this file")


def _damaged_error(archive: Path, error: Exception) -> TfpruneError:
    return TfpruneError(
        f"{archive} cannot be unpacked ({one_line(error)}): export or copy it again"
    )
