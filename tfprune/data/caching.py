"""What is kept between runs: outcomes of long checks, and decoded examples."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.data.memory_maps import MappedArrays
from tfprune.data.splits import Arrays, Split, filled, first, leaves
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import CACHE_VARIABLE, cache_directory, document_hash, partial_folder, sweep

if TYPE_CHECKING:
    from tfprune.data.sources.base import Request

MIB = 2**20
_BATCH = 256


def remembered(
    kind: str, key: str, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that a long computation gives, computed once for each key.

    Example:
        ```python
        remembered("shapes", "0123456789ab", lambda: {"shapes": np.zeros((10, 3))})
        ```

    A cache that cannot be written or read costs only time.

    Args:
        kind: the folder in the cache directory.
        key: a hash of all that the result depends on.
        compute: makes the arrays.
    """
    path = cache_directory() / kind / f"{key}.npz"
    with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as stored:
        return dict(stored)
    arrays = compute()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(path.parent) as folder:
            np.savez_compressed(folder / path.name, **arrays)  # type: ignore[arg-type]
            (folder / path.name).replace(path)
    return arrays


def bytes_of(split: Split) -> int:
    """The size of all examples of a split in memory.

    Example:
        ```python
        bytes_of(Arrays(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10)))  # 720
        ```
    """
    return len(split) * sum(
        spec.dtype.size * math.prod(spec.shape)
        for tree in split.element_spec
        for spec in leaves(tree)
    )


def cached(
    splits: dict[str, Split], request: Request, key: str | None, name: str, classes: int = 0
) -> dict[str, Split]:
    """Splits whose examples are read from their files only once.

    Example:
        ```python
        cached({"train": photos}, Request(cache="memory"), None, "photos")["train"]
        ```

    Args:
        splits: by name; `Arrays` stay as they are.
        request: where examples are cached, and how much of them. Only those that the request needs
            are read.
        key: a hash of the content and of the way it is decoded. A cache on disk has its name.
        name: what messages call the data set.
        classes: the number of classes; 0 if the targets are not classes.

    Returns:
        The splits: in memory, or in files that are mapped into memory.

    Raises:
        UsageError: they need more than `request.cache_mib`, or nothing says when they change.
        TfpruneError: the disk is full, or the cache directory cannot be written.
    """
    if request.cache is None:
        return splits
    needed = {
        split: first(found, request.wanted(split, classes))
        for split, found in splits.items()
        if not isinstance(found, Arrays)
        and not (request.cache == "disk" and isinstance(found, MappedArrays))
    }
    total = sum(map(bytes_of, needed.values()))
    if total > request.cache_mib * MIB:
        raise UsageError(
            f"{name} needs {total / MIB:,.3g} MiB as a cache and cache_mib={request.cache_mib:g}: "
            f"give cache_mib = {math.ceil(total / MIB)}, or leave cache out"
        )
    if request.cache == "disk" and needed and key is None:
        raise UsageError(
            f'{name} does not say when its examples change, and cache = "disk" keeps them: give '
            'the data option version, or cache = "memory"'
        )
    done = dict(splits)
    for split, found in needed.items():
        if request.cache == "memory":
            done[split] = _gathered(found, lambda shape, dtype, _: np.empty(shape, dtype))
        else:
            done[split] = _on_disk(found, document_hash([key, split, len(found)]), name)
    return done


def _on_disk(split: Split, key: str, name: str) -> MappedArrays:
    """The split in files that are mapped; they are complete or not there."""
    folder = cache_directory() / "examples" / key
    for _ in range(2):
        with contextlib.suppress(OSError, ValueError):
            return _mapped(split, folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            sweep(folder.parent)
            with partial_folder(folder.parent) as partial:
                written = partial / key
                written.mkdir()
                _gathered(
                    split,
                    lambda shape, dtype, place: np.lib.format.open_memmap(
                        _file(written, place),  # noqa: B023 - called within the loop.
                        mode="w+",
                        dtype=dtype,
                        shape=shape,
                    ),
                )
                # Another process may have been faster: its files hold the same.
                with contextlib.suppress(OSError):
                    written.rename(folder)
        except OSError as error:
            raise TfpruneError(
                f"the cache of {name} cannot be written to {folder.parent} ({error.strerror}): set "
                f"{CACHE_VARIABLE} to a folder with room, or leave cache out"
            ) from error
    raise TfpruneError(f"the cache {folder} is damaged: delete this folder")


def _file(folder: Path, place: int) -> Path:
    return folder / f"{place}.npy"


def _mapped(split: Split, folder: Path) -> MappedArrays:
    specs = [spec for tree in split.element_spec for spec in leaves(tree)]
    arrays = [np.load(_file(folder, place), mmap_mode="r") for place in range(len(specs))]
    for array, spec in zip(arrays, specs, strict=True):
        if array.shape != (len(split), *spec.shape) or array.dtype != spec.dtype.as_numpy_dtype:
            raise ValueError("the files hold other examples")
    return MappedArrays(filled(split.element_spec, iter(arrays)))


def _gathered(split: Split, new: Callable[[tuple[int, ...], Any, int], np.ndarray]) -> Arrays:
    """All examples, in arrays that `new` makes of a shape, a dtype and a place."""
    specs = [spec for tree in split.element_spec for spec in leaves(tree)]
    arrays = [
        new((len(split), *spec.shape), spec.dtype.as_numpy_dtype, place)
        for place, spec in enumerate(specs)
    ]
    begin = 0
    for batch in split.ordered(_BATCH).as_numpy_iterator():
        parts = [leaf for tree in batch for leaf in leaves(tree)]
        for array, part in zip(arrays, parts, strict=True):
            array[begin : begin + len(part)] = part
        begin += len(parts[0])
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    return Arrays(*filled(split.element_spec, iter(arrays)))
