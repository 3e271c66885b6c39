"""Sizes, read from the files themselves, and how small a file with these weights could be."""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Iterable

import numpy as np

from tfprune.archives import ZSTD_LEVEL
from tfprune.files import existing, existing_file
from tfprune.formats import StoredWeights

_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# zlib writes gzip's header and trailer when 16 is added to the window bits.
_GZIP_WINDOW = 31


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


@dataclasses.dataclass(frozen=True)
class Floor:
    """Bytes that the weights alone need; names, graph and code tables come on top.

    Attributes:
        mask_bytes: "Mask and b bits a living weight": of n weights of b bits, a share d of them
            not zero, `n (H(d) + b d) / 8`, with H the binary entropy in bits. Reached by an ideal
            code for where the zeros are and no compression of the values: at 80% zeros 4.49 times
            smaller than dense float32.
        entropy_bytes: "Order-0 entropy": as above, but a living weight costs the empirical entropy
            of its bytes, each byte position by itself. For int8 this is exactly the entropy of the
            stored values, which no coder that looks at one weight at a time can pass. It is the
            smaller of the two, for trained weights have few exponents and many small integers.
    """

    mask_bytes: float
    entropy_bytes: float


def floor(weights: Iterable[StoredWeights]) -> Floor:
    """The floors of an artifact's weights, summed over its tensors (Shannon 1948).

    Example:
        ```python
        floor(tfprune.formats.load("model.tflite").weights()).mask_bytes
        ```

    Every tensor has its own density and its own statistics, as far as a coder could know them;
    so the sum is never above the formula at the mean density.

    Args:
        weights: As `Runtime.weights` gives them.
    """
    mask = entropy = 0.0
    for each in weights:
        where = each.size * binary_entropy(each.density)
        mask += where + each.bits * len(each.living)
        entropy += where + len(each.living) * _value_entropy(each)
    return Floor(mask / 8, entropy / 8)


def binary_entropy(share: float) -> float:
    """Bits that one answer of yes or no carries.

    Args:
        share: How often it is yes, 0 to 1.
    """
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def _value_entropy(weights: StoredWeights) -> float:
    """Bits of one living value: the entropies of its bytes, each position by itself."""
    if not len(weights.living):
        return 0.0
    values = np.ascontiguousarray(weights.living)
    planes = values.view(np.uint8).reshape(len(values), values.itemsize)
    return sum(_entropy(np.bincount(plane, minlength=256)) for plane in planes.T)


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
