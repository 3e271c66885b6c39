"""Arrays in files: one FILE.npz, or a folder of .npy files that need not fit into memory."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfprune.data.checking import SPLITS, ClassOptions, checked, few
from tfprune.data.image_files import listing, resize
from tfprune.data.sources.base import Opened, Source
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.files import document_hash, sha256

if TYPE_CHECKING:
    from tfprune.data.splits import Tree

_NAME = re.compile(
    rf"(?P<role>[xyw])(?:_(?P<split>{'|'.join(sorted(SPLITS, key=len, reverse=True))}))?"
    r"(?:_(?P<name>.+))?"
)
_ROLES = ("x", "y", "w")
_CLASSES = "classes"
_MIB = 2**20
_AT_ONCE = 1024


class ArrayOptions(ClassOptions):
    """Options of arrays in files.

    Attributes:
        channel_axis: whether inputs (n, height, width) get a last axis of one channel.
    """

    channel_axis: bool = False


class ArrayFiles(Source):
    """FILE.npz, or a folder with `x_train.npy`, `y_train.npy` and so on.

    Example:
        ```python
        np.savez("digits.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
        ArrayFiles("digits.npz", Request()).open().splits["test"]
        ```

    An array is called ROLE_SPLIT or ROLE_SPLIT_NAME:

    - ROLE is `x` (inputs), `y` (targets) or `w` (sample weights, which may be missing).
    - SPLIT is `train`, `validation` (or `val`, `valid`) or `test`. Without it, as in `x` and `y`,
      the array is of the train split, from which the others are held out.
    - NAME is of one of several inputs or targets, as in `x_train_image` and `x_train_age`.

    Targets (n,) or (n, 1) that are integers or texts are classes. Other targets stay as they are:
    numbers to predict, classes as rows of 0 and 1, maps of classes. An array `classes` of texts
    names the classes, as the option `classes` does.

    Files with the suffix .npy are mapped into memory and read when they are needed. Pickled objects
    are never loaded. `image_size` resizes images of 8 bits that are in memory.
    """

    meaning = "FILE.npz, or a folder of arrays, with x_train, y_train, x_test and y_test"
    order = 20

    @classmethod
    def takes(cls, name: str) -> bool:
        """A file that ends in .npz or .npy, or a folder of files .npy."""
        if name.lower().endswith((".npz", ".npy")):
            return True
        try:
            path = Path(name).expanduser()
            return path.is_dir() and any(each.suffix == ".npy" for each in path.iterdir())
        except (OSError, ValueError, RuntimeError):
            return False

    @cached_property
    def _options(self) -> ArrayOptions:
        return ArrayOptions.of(self.name, self.request.options)

    @property
    def _path(self) -> Path:
        path = Path(self.name).expanduser()
        # x_train.npy stands for all arrays beside it.
        return path.parent if path.suffix.lower() == ".npy" else path

    def check(self) -> None:
        """Checks that the arrays are there, by their names."""
        _ = self._options
        if not Path(self.name).expanduser().exists():
            raise UsageError(f"{self.name} does not exist: check the path")
        _ = self._named

    @cached_property
    def _keys(self) -> list[str]:
        """The names of all arrays."""
        if self._path.is_dir():
            return sorted(each.stem for each in self._path.glob("*.npy"))
        try:
            with zipfile.ZipFile(self._path) as archive:
                return sorted(
                    name.removesuffix(".npy")
                    for name in archive.namelist()
                    if name.endswith(".npy")
                )
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{self.name} is not a file of numpy.savez ({one_line(error)}): write it with "
                "numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"
            ) from error

    @cached_property
    def _named(self) -> dict[str, dict[str, dict[str, str]]]:
        """The key of each array, by split, role and name; the name is "" for a single one."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for key in self._keys:
            parts = _NAME.fullmatch(key)
            if not parts:
                continue
            split = SPLITS[parts["split"] or "train"]
            named = found.setdefault(split, {}).setdefault(parts["role"], {})
            name = parts["name"] or ""
            if name in named:
                raise UsageError(
                    f"{self.name} has {named[name]} and {key}, which are the same: keep one"
                )
            named[name] = key
        if "train" not in found or "x" not in found["train"]:
            has = few(self._keys) if self._keys else "no arrays"
            raise UsageError(
                f"{self.name} has {has}, and no x_train: name its arrays x_train, y_train, x_test "
                "and y_test"
            )
        for split, roles in found.items():
            first = next(iter(next(iter(roles.values())).values()))
            for role in ("x", "y"):
                if role not in roles:
                    raise UsageError(
                        f"{self.name} has {first} and no {role}_{split}: add the "
                        f"{'inputs' if role == 'x' else 'targets'} of {split}"
                    )
            for role, named in roles.items():
                if "" in named and len(named) > 1:
                    raise UsageError(
                        f"{self.name} has {named['']} beside {few([*named.values()][1:])}: name "
                        f"every {'input' if role == 'x' else 'array'} of several"
                    )
        return {split: found[split] for split in dict.fromkeys(SPLITS.values()) if split in found}

    def fingerprint(self) -> str:
        """The content of a FILE.npz; the sizes and times of files .npy."""
        if self._path.is_dir():
            return self.signature()
        return document_hash(sha256(self._path))

    def signature(self) -> str:
        """The sizes and times of the files."""
        if self._path.is_dir():
            return document_hash(listing(self._path, [f"{key}.npy" for key in self._keys]))
        return document_hash(listing(self._path.parent, [self._path.name]))

    def open(self) -> Opened:
        """The arrays, checked."""
        from tfprune.data.caching import cached
        from tfprune.data.memory_maps import held
        from tfprune.data.splits import Split

        options = self._options
        arrays = self._mapped() if self._path.is_dir() else self._loaded()
        if _CLASSES in arrays and options.classes is None:
            names = arrays.pop(_CLASSES)
            if names.dtype.kind != "U" or names.ndim != 1:
                raise UsageError(f"{self.name}: the array classes holds no names: give texts (k,)")
            options = options.model_copy(update={"classes": [str(each) for each in names]})
        given = {
            split: tuple(
                self._tree({name: arrays[key] for name, key in roles[role].items()})
                if role in roles
                else None
                for role in _ROLES
            )
            for split, roles in self._named.items()
        }
        ready = {
            split: (self._images(trees[0]), trees[1], trees[2]) for split, trees in given.items()
        }
        key = self.signature() if self._path.is_dir() else None
        found = checked(self.name, ready, options, key)
        splits: dict[str, Split] = {split: held(part.given) for split, part in found.parts.items()}
        if self.request.cache == "memory":
            splits = cached(splits, self.request, None, self.name, len(found.classes))
        unused = [key for key in self._keys if key not in self._wanted]
        left_out = [f"not read: {few(unused)}" if unused else "", found.left_out]
        return Opened(
            f"arrays in {self.name}",
            found.classes,
            splits,
            "; ".join(said for said in left_out if said),
        )

    def _tree(self, named: Mapping[str, np.ndarray]) -> Tree:
        return named[""] if "" in named else dict(named)

    def _images(self, tree: Tree) -> Tree:
        """Inputs with the axis and in the size that were asked for."""
        from tfprune.data.splits import mapped

        tree = mapped(self._with_channel, tree) if self._options.channel_axis else tree
        size = self.request.image_size
        if size is None:
            return tree
        return self._resized(tree, size)

    def _with_channel(self, leaf: np.ndarray) -> np.ndarray:
        if leaf.ndim != 3:
            raise UsageError(
                f"the data options of {self.name}: channel_axis is for inputs (n, height, width), "
                f"and these have the shape {leaf.shape}"
            )
        return leaf[..., None]

    def _resized(self, tree: Tree, size: tuple[int, int]) -> Tree:
        if not isinstance(tree, np.ndarray) or tree.ndim != 4 or tree.dtype != np.uint8:
            raise UsageError(
                f"{self.name}: image_size is for images, uint8 (n, height, width, channels), and "
                "its inputs are others: leave it out"
            )
        if tree.shape[1:3] == size:
            return tree
        if isinstance(tree, np.memmap):
            raise UsageError(
                f"{self.name} is read from its files as it is needed, and image_size is for images "
                "in memory: save it in the size, or as FILE.npz"
            )
        parts = [
            resize(tree[begin : begin + _AT_ONCE], size).numpy()
            for begin in range(0, max(1, len(tree)), _AT_ONCE)
        ]
        return np.concatenate(parts)

    @cached_property
    def _wanted(self) -> list[str]:
        """The names of the arrays that are read."""
        trees = [named for roles in self._named.values() for named in roles.values()]
        used = [key for named in trees for key in named.values()]
        return [*used, *([_CLASSES] if _CLASSES in self._keys else [])]

    def _loaded(self) -> dict[str, np.ndarray]:
        """The arrays of a FILE.npz, in memory."""
        arrays: dict[str, np.ndarray] = {}
        with zipfile.ZipFile(self._path) as archive:
            total = sum(archive.getinfo(f"{key}.npy").file_size for key in self._wanted)
        if total > self.request.cache_mib * _MIB:
            raise UsageError(
                f"{self.name} needs {total / _MIB:,.3g} MiB of memory and cache_mib="
                f"{self.request.cache_mib:g}: give cache_mib = {math.ceil(total / _MIB)}, or save "
                "each array as a file .npy in a folder"
            )
        for key in self._wanted:
            try:
                with np.load(self._path, allow_pickle=False) as file:
                    arrays[key] = file[key]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
                raise self._unreadable(key, error) from error
        return arrays

    def _mapped(self) -> dict[str, np.ndarray]:
        arrays = {}
        for key in self._wanted:
            try:
                arrays[key] = np.load(self._path / f"{key}.npy", mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise self._unreadable(key, error) from error
        return arrays

    def _unreadable(self, key: str, error: Exception) -> TfpruneError:
        if "pickle" in str(error) or "Python objects" in str(error):
            return UsageError(
                f"{self.name}: {key} holds Python objects, which are never loaded: save arrays of "
                "numbers, or of texts as names of classes"
            )
        return TfpruneError(
            f"{self.name}: {key} cannot be read ({one_line(error)}): write the file again"
        )
