"""A `.tar.gz` or `.tar.zst` whose bytes depend on nothing but the files in it."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
from pathlib import Path
from typing import IO, Any

from tfprune.errors import UsageError
from tfprune.measure.size import ZSTD_LEVEL


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
        compressed = stack.enter_context(_compressed(file, archive.suffix))
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


def _compressed(file: IO[bytes], suffix: str) -> Any:
    if suffix != ".zst":
        # gzip.open cannot leave out the time and the file's name, both of which are in the header.
        return gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0)
    try:
        import zstandard
    except ImportError:
        raise UsageError("a .tar.zst needs zstandard: pip install zstandard") from None
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file, closefd=False)
