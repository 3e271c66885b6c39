"""Models at an address: downloaded once, into the user's cache."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.files import cache_directory, partial_folder, sha256

_SCHEMES = ("http://", "https://")
_CHECKSUM = "sha256="
_DIGITS = 64
# Of silence; a large file may take as long as it needs.
_TIMEOUT_SECONDS = 60.0


def is_address(name: str) -> bool:
    """Whether a name of a model is an address.

    Example:
        >>> is_address("https://example.org/net.h5")
        True
    """
    return name.lower().startswith(_SCHEMES)


def cached_path(address: str) -> Path:
    """Where the file of an address is kept, or will be.

    Example:
        ```python
        cached_path("https://example.org/net.h5")  # ~/.cache/tfprune/models/ab12.../net.h5
        ```

    Args:
        address: of a file, with `#sha256=` and 64 hexadecimal digits behind it to check it.

    Raises:
        UsageError: it names no file, or the checksum is none.
    """
    where, checksum = _parts(address)
    try:
        place = urllib.parse.unquote(urllib.parse.urlsplit(where).path)
    except ValueError as error:
        raise UsageError(f"{address} is not an address ({one_line(error)}): correct it") from error
    name = PurePosixPath(place).name
    if not name:
        raise UsageError(f"{address} names no file: give the address of a .keras or .h5 file")
    # Of another checksum it is another file.
    key = hashlib.sha256(f"{where}#{checksum}".encode()).hexdigest()[:16]
    return cache_directory() / "models" / key / name


def fetched(address: str) -> Path:
    """The file of an address, downloaded if it is not in the cache.

    Example:
        ```python
        fetched("https://example.org/net.h5#sha256=9f86d081...")
        ```

    A file in the cache is not asked for again. Delete it to have a newer one.

    Args:
        address: see `cached_path`.

    Returns:
        The path of the whole file.

    Raises:
        UsageError: the address is none.
        TfpruneError: it cannot be downloaded, or the file has another checksum.
    """
    path = cached_path(address)
    if path.is_file():
        return path
    where, checksum = _parts(address)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(path.parent) as partial:
            new = partial / path.name
            _download(where, new)
            if checksum and (found := sha256(new)) != checksum:
                raise TfpruneError(
                    f"{where} has the SHA-256 {found}, not {checksum}: correct the checksum, if "
                    "you trust the file"
                )
            new.replace(path)
    # An address that is none raises ValueError.
    except (OSError, HTTPException, ValueError) as error:
        raise TfpruneError(
            f"{where} cannot be downloaded ({one_line(error)}): check the address and the network, "
            "or download the file and give its path"
        ) from error
    return path


def _download(where: str, path: Path) -> None:
    request = urllib.request.Request(where, headers={"User-Agent": "tfprune"})
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file)
        size = answer.headers.get("Content-Length")
        # A connection that breaks off looks like the end of the file.
        if size is not None and file.tell() != int(size):
            raise urllib.error.URLError(f"{file.tell():,} of {int(size):,} bytes arrived")


def _parts(address: str) -> tuple[str, str]:
    """The address alone, and the checksum behind it, empty where there is none."""
    where, _, fragment = address.partition("#")
    if not fragment:
        return where, ""
    digits = fragment.removeprefix(_CHECKSUM).lower()
    if (
        not fragment.startswith(_CHECKSUM)
        or len(digits) != _DIGITS
        or set(digits) - set("0123456789abcdef")
    ):
        raise UsageError(
            f"{address}: what stands behind # must be {_CHECKSUM} and {_DIGITS} hexadecimal digits"
        )
    return where, digits
