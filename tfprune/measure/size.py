"""Sizes, read from the files themselves."""

from __future__ import annotations

import os
import zlib

from tfprune.files import existing, existing_file

_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# zlib writes gzip's header and trailer when 16 is added to the window bits.
_GZIP_WINDOW = 31
# The highest level that needs no more memory to unpack; archives are written at it too.
ZSTD_LEVEL = 19


def raw_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes that a file, or all files of a directory, hold.

    Args:
        path: A file or a directory. Directories and links themselves count nothing.

    Raises:
        TfpruneError: It does not exist.
    """
    path = existing(path)
    if path.is_file():
        return path.stat().st_size
    files = (p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    return sum(p.stat().st_size for p in files)


def gzip_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes of a file after `gzip -9`; what is gzip already counts as it is.

    Zeros cost nothing once compressed, so this is where weight pruning shows. A `.keras` file is
    a zip that stores its members uncompressed: it is compressed like any other file.

    Args:
        path: A file.

    Raises:
        TfpruneError: It does not exist.
        UsageError: It is a directory.
    """
    path = existing_file(path)
    with path.open("rb") as file:
        if file.read(2) == _GZIP_MAGIC:
            return path.stat().st_size
        file.seek(0)
        compressor = zlib.compressobj(9, wbits=_GZIP_WINDOW)
        size = sum(
            len(compressor.compress(chunk)) for chunk in iter(lambda: file.read(_CHUNK), b"")
        )
        return size + len(compressor.flush())


def zstd_bytes(path: str | os.PathLike[str]) -> int | None:
    """Bytes of a file after `zstd -19`; what is zstd already counts as it is.

    Args:
        path: A file.

    Returns:
        The size, or None where zstandard is not installed.

    Raises:
        TfpruneError: It does not exist.
        UsageError: It is a directory.
    """
    path = existing_file(path)
    try:
        import zstandard
    except ImportError:
        return None
    content = path.read_bytes()
    if content.startswith(zstandard.FRAME_HEADER):
        return len(content)
    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content))
