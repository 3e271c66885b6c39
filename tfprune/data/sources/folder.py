"""A folder of images, in which a sub-folder is a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tfprune.data.checking import (
    SPLITS,
    ClassOptions,
    Share,
    check_classes,
    default_shares,
    few,
    hash_place,
    hash_split,
)
from tfprune.data.image_files import (
    IMAGE_SUFFIXES,
    FileExamples,
    ImageFiles,
    common_channels,
    common_size,
    inspect,
    is_image,
    listing,
    unreadable,
)
from tfprune.data.sources.base import Opened, Source
from tfprune.errors import UsageError, did_you_mean
from tfprune.files import document_hash

if TYPE_CHECKING:
    from tfprune.data.splits import Split

_DEEPEST_LOOK = 3


class FolderOptions(ClassOptions):
    """Options of a folder of images.

    Attributes:
        channels: 1 for grey images, 3 for colour; None: grey if every file is.
        shares: of train, validation and test where the folder has no folders of splits.
        follow_links: whether links to folders inside the folders of classes are followed.
    """

    classes: list[str] | None = None
    channels: Literal[1, 3] | None = None
    shares: Annotated[list[Share], Field(min_length=3, max_length=3)] | None = None
    follow_links: bool = False


class Folder(Source):
    """A folder of images: `CLASS/IMAGE`, or `train/CLASS/IMAGE`, `validation/...`, `test/...`.

    Example:
        ```python
        opened = Folder("photos", Request(image_size=(96, 96))).open()
        opened.classes  # ("cat", "dog")
        ```

    The conventions are those of `keras.utils.image_dataset_from_directory`: classes are the
    sub-folders in alphabetical order, images are files that end in .bmp, .gif, .jpeg, .jpg or .png
    in any case, in whatever depth; links to files and to folders of classes are followed, others if
    the option `follow_links` says so. Unlike there, hidden files and folders are left out, since
    they are previews and copies; the note of the data set counts what is left out.

    Without folders of splits, the hash of a file's name chooses its split, so that a new file moves
    no other. Files are in the order of another hash: the first hundred are of all classes.
    """

    meaning = "a folder of images with a sub-folder for each class"
    order = 60

    @classmethod
    def takes(cls, name: str) -> bool:
        """A path to a folder; a bare name only if the folder holds images, or is no data set."""
        try:
            path = Path(name).expanduser()
            if not path.is_dir():
                return False
        except (OSError, ValueError, RuntimeError):
            return False
        if os.sep in name or "/" in name or name.startswith((".", "~")):
            return True
        return _holds_images(path, _DEEPEST_LOOK) or not _is_known(name)

    @property
    def _root(self) -> Path:
        return Path(self.name).expanduser()

    @property
    def _shares(self) -> Sequence[float]:
        return self._options.shares or default_shares(self.request.validation)

    @cached_property
    def _options(self) -> FolderOptions:
        return FolderOptions.of(self.name, self.request.options)

    def check(self) -> None:
        """Checks that the folder has images of two classes or more."""
        if self._shares[0] == 0:
            raise UsageError(f"the data options of {self.name}: shares gives train nothing")
        found = self._found
        self._check_classes(found.labels, found.splits)

    def fingerprint(self) -> str:
        """The names, sizes and times of the files."""
        return document_hash([self._found.layout, self._files])

    @cached_property
    def _found(self) -> _Found:
        return _find(self.name, self._options, self._shares)

    def _check_classes(self, labels: np.ndarray, splits: np.ndarray) -> str:
        found = self._found
        expected = found.layout or [
            split
            for split, share in zip(("train", "validation", "test"), self._shares, strict=True)
            if share
        ]
        counts = {
            split: np.bincount(labels[splits == split], minlength=len(found.classes))
            for split in expected
        }
        hashed = not found.layout
        return check_classes(self.name, counts, found.classes, self._options, hashed)

    @cached_property
    def _files(self) -> list[list[Any]]:
        return listing(self._root, self._found.names)

    def open(self) -> Opened:
        """The images of each split, which are decoded when they are needed."""
        from tfprune.data.caching import cached

        options, found = self._options, self._found
        inspection = inspect(self._root, self._files)
        left_out = [
            unreadable(self.name, found.names, inspection.problems, self.request),
            found.left_out,
        ]
        readable = inspection.readable
        if not readable.any():
            raise UsageError(f"{self.name} has no image that can be read: check its files")
        names = [name for name, good in zip(found.names, readable, strict=True) if good]
        shapes = inspection.shapes[readable]
        labels = found.labels[readable]
        splits = found.splits[readable]
        size = common_size(self.name, shapes, self.request)
        channels = options.channels or common_channels(shapes)
        everything = FileExamples(ImageFiles.of(self._root, names, shapes, size, channels), labels)
        # Not in the order of classes: a limit takes the first.
        order = np.argsort([hash_place(name, "order ") for name in names])
        read: dict[str, Split] = {
            split: everything.select(order[splits[order] == split])
            for split in dict.fromkeys(SPLITS.values())
            if split in splits
        }
        missing = self._check_classes(labels, splits)
        how = [names, labels.tolist(), splits.tolist(), size, channels]
        key = document_hash([str(self._root.resolve()), self._files, how])
        read = cached(read, self.request, key, self.name, len(found.classes))
        origin = f"{len(names):,} images in the folder {self.name}"
        if not found.layout:
            origin += ", split by a hash of each file's name"
        if size == self.request.usual_size and not self.request.image_size:
            origin += f", resized to {size[0]}x{size[1]}"
        return Opened(
            origin,
            found.classes,
            read,
            "; ".join(said for said in [*left_out, missing] if said),
        )


@dataclass(frozen=True, eq=False)
class _Found:
    """The files of a folder.

    Attributes:
        names: of the files, relative to the folder, with slashes, in alphabetical order.
        labels: int64 (n,).
        splits: the split of each file, text (n,).
        classes: their names.
        layout: the folders of the splits by split; empty if the files are split by hash.
        left_out: what is not taken, for reports.
    """

    names: list[str]
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    layout: dict[str, str]
    left_out: str


def _find(name: str, options: FolderOptions, shares: Sequence[float]) -> _Found:
    """Lists a folder; no file is opened."""
    root = Path(name).expanduser()
    if not root.is_dir():
        raise UsageError(f"{name} is not a folder: check the path")
    left_out: Counter[str] = Counter()
    try:
        layout = _layout(name, root, left_out)
        if layout and options.shares:
            raise UsageError(
                f"{name} has folders of splits ({', '.join(layout.values())}), and the data option "
                "shares is for a folder without: leave it out"
            )
        roots = {split: root / folder for split, folder in layout.items()} or {"": root}
        folders = {split: _folders(path, left_out) for split, path in roots.items()}
        classes = _classes(name, sorted(set().union(*folders.values())), options, left_out)
        entries = [
            (file.relative_to(root).as_posix(), number, split)
            for split, path in roots.items()
            for number, each in enumerate(classes)
            if each in folders[split]
            for file in _images(path / each, options.follow_links, left_out)
        ]
        if not entries:
            raise UsageError(_nothing(name, root, classes, left_out))
        for split, folder in layout.items():
            if not any(entry[2] == split for entry in entries):
                raise UsageError(
                    f"{name}/{folder} has no images in folders of classes: sort its images into "
                    "such folders, or move it elsewhere"
                )
    except OSError as error:
        raise UsageError(
            f"{error.filename or name} cannot be read ({error.strerror}): check its permissions"
        ) from error
    entries.sort()
    names = [entry[0] for entry in entries]
    splits = [entry[2] or hash_split(entry[0], shares) for entry in entries]
    labels = np.array([entry[1] for entry in entries], np.int64)
    return _Found(names, labels, np.array(splits), classes, layout, _said(left_out))


def _layout(name: str, root: Path, left_out: Counter[str]) -> dict[str, str]:
    """The folders of the splits by split; empty if there are none."""
    found: dict[str, list[str]] = {}
    others = []
    for folder in _folders(root, Counter()):
        split = SPLITS.get(folder.lower())
        if split:
            found.setdefault(split, []).append(folder)
        else:
            others.append(folder)
    # A folder of vehicles may have a class that is called train: then its images lie in it.
    if "train" not in found or not any(_folders(root / each, Counter()) for each in found["train"]):
        if found and not others and "train" not in found:
            has = " and ".join(each for parts in found.values() for each in parts)
            raise UsageError(f"{name} has {has}, and no folder train: add one")
        return {}
    for split, folders in found.items():
        if len(folders) > 1:
            raise UsageError(
                f"{name} has {' and '.join(folders)}, which are both the {split} split: keep one"
            )
    for other in others:
        left_out[f"folder {other}"] += 1
    return {split: found[split][0] for split in dict.fromkeys(SPLITS.values()) if split in found}


def _classes(
    name: str, every: Sequence[str], options: FolderOptions, left_out: Counter[str]
) -> tuple[str, ...]:
    if options.classes is None:
        return tuple(every)
    for each in options.classes:
        if each not in every:
            raise UsageError(
                f"{name} has no folder of a class {each!r}: {did_you_mean(each, every)}"
            )
    for each in every:
        if each not in options.classes:
            left_out[f"folder {each}"] += 1
    return tuple(options.classes)


def _folders(path: Path, left_out: Counter[str]) -> list[str]:
    """The visible sub-folders, links to folders among them."""
    with os.scandir(path) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir())
    left_out["hidden"] += sum(each.startswith(".") for each in found)
    return [each for each in found if not each.startswith(".")]


def _images(path: Path, follow_links: bool, left_out: Counter[str]) -> Iterator[Path]:
    """The image files of a class, in whatever depth."""
    seen = {path.resolve()}

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(path, onerror=fail, followlinks=follow_links):
        here = Path(folder)
        kept = []
        for each in sorted(folders):
            below = here / each
            if each.startswith("."):
                left_out["hidden"] += 1
            elif not below.is_symlink():
                kept.append(each)
            elif follow_links and below.resolve() not in seen:
                # A link may lead back to where it lies.
                seen.add(below.resolve())
                kept.append(each)
            else:
                left_out["link"] += 1
        folders[:] = kept
        for each in files:
            if each.startswith("."):
                left_out["hidden"] += 1
            elif is_image(each):
                yield here / each
            else:
                left_out[f"*{Path(each).suffix.lower()}"] += 1


def _said(left_out: Counter[str]) -> str:
    """What is left out, as a clause of a report."""
    said = [
        f"{count:,} files {name[1:] or 'without a suffix'}" if name.startswith("*") else ""
        for name, count in left_out.most_common()
    ]
    said += [name for name in left_out if name.startswith("folder ")]
    for kind, meaning in (
        ("hidden", "hidden files or folders"),
        ("link", "links to folders"),
    ):
        if left_out[kind]:
            said.append(f"{left_out[kind]:,} {meaning}")
    said = [each for each in said if each]
    return f"not images, or left out: {few(said, most=5)}" if said else ""


def _nothing(name: str, root: Path, classes: Sequence[str], left_out: Counter[str]) -> str:
    suffixes = ", ".join(IMAGE_SUFFIXES)
    loose = sum(is_image(each.name) for each in root.iterdir() if each.is_file())
    if loose and not classes:
        return (
            f"{name} has {loose:,} images and no folders of classes: sort them into one folder for "
            "each class, or write an index, FILE.csv"
        )
    said = _said(left_out)
    return (
        f"{name} has no images in folders of classes{f' ({said})' if said else ''}: give files "
        f"that end in {suffixes}, in a folder for each class"
    )


def _holds_images(path: Path, depth: int) -> bool:
    try:
        with os.scandir(path) as entries:
            inner = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    inner.append(entry.path)
                elif is_image(entry.name):
                    return True
    except OSError:
        return False
    return depth > 1 and any(_holds_images(Path(each), depth - 1) for each in inner)


def _is_known(name: str) -> bool:
    """Whether tensorflow_datasets has a data set of this name."""
    import tensorflow_datasets

    return name in tensorflow_datasets.list_builders(with_community_datasets=False)
