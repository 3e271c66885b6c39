"""A `.tar.gz` whose bytes depend on nothing but the files in it."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path


def pack(directory: Path, archive: Path, root: str) -> None:
    """Packs a directory, the same bytes for the same files.

    Names are sorted; owners, times and permissions of this machine are left out.

    Args:
        directory: What to pack.
        archive: The `.tar.gz` to write.
        root: Name of the top folder inside the archive.
    """
    # gzip.open cannot leave out the time and the file's name, both of which are in the header.
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
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
