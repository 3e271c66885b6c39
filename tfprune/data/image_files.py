"""Image files: which can be read, examples that are decoded when they are needed, other sizes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfprune.data.caching import remembered
from tfprune.data.splits import RandomAccess, Tree, leaves, mapped
from tfprune.errors import OpenSizeError, UsageError, one_line
from tfprune.files import document_hash
from tfprune.quiet import quiet

if TYPE_CHECKING:
    import tensorflow as tf

    from tfprune.data.sources.base import Request

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""Of the files that are images, in lower case, as in `keras.utils.image_dataset_from_directory`."""

Channels = Literal[1, 3]
_COLOURS = 3
_VALUES = 256
_AT_ONCE = 256
_SHOWN = 3
_REVISION = 1


def is_image(name: str) -> bool:
    """Whether a file is an image, by its suffix.

    Example:
        >>> is_image("cats/1.JPG"), is_image("cats/1.txt")
        (True, False)
    """
    return name.lower().endswith(IMAGE_SUFFIXES)


def listing(root: Path, names: Iterable[str]) -> list[list[Any]]:
    """Name, size and time of files: what changes when a file does; None where there is no file.

    Example:
        ```python
        listing(Path("photos"), ["cats/1.jpg"])  # [["cats/1.jpg", 1024, 1700000000000000000]]
        ```
    """
    found: list[list[Any]] = []
    for name in names:
        try:
            stat = (root / name).stat()
        except (OSError, ValueError):
            found.append([name, None, None])
        else:
            found.append([name, stat.st_size, stat.st_mtime_ns])
    return found


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a pass over image files found.

    Attributes:
        shapes: int32 (n, 3): height, width and channels of each file; zeros if it is unreadable.
        problems: what is wrong with a file, by its number.
        values: int64 (256,): a file that has a pixel of this value in its first channel; -1 if none
            has, or if nobody looked.
    """

    shapes: np.ndarray
    problems: dict[int, str]
    values: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """Which files can be read, bool (n,)."""
        return self.shapes[:, 0] > 0


def inspect(root: Path, files: Sequence[Sequence[Any]], values: bool = False) -> Inspection:
    """Decodes image files wholly, many at a time, to find those that are damaged.

    Example:
        ```python
        inspect(Path("photos"), listing(Path("photos"), ["cats/1.jpg"])).shapes  # [[480, 640, 3]]
        ```

    The outcome is remembered as long as names, sizes and times of the files stay the same.

    Args:
        root: the folder that names are relative to.
        files: from `listing`.
        values: whether to look for the values of pixels too, as in masks.
    """
    import tensorflow as tf

    key = document_hash([_REVISION, tf.__version__, str(root.resolve()), list(files), values])
    names = [file[0] for file in files]
    found = remembered("inspections", key, lambda: _inspected(root, names, values))
    problems = dict(zip(found["damaged"].tolist(), found["said"].tolist(), strict=True))
    return Inspection(found["shapes"], problems, found["values"])


def _inspected(root: Path, names: Sequence[str], look: bool) -> dict[str, np.ndarray]:
    import tensorflow as tf

    shapes = np.zeros((len(names), 3), np.int32)
    problems: dict[int, str] = {}

    def inspect_from(begin: int) -> np.ndarray:
        values = np.full(_VALUES, -1, np.int64)
        for place in range(begin, min(begin + _AT_ONCE, len(names))):
            try:
                image = tf.io.decode_image(
                    (root / names[place]).read_bytes(), expand_animations=False
                ).numpy()
            except OSError as error:
                problems[place] = error.strerror or type(error).__name__
            except (tf.errors.OpError, ValueError) as error:
                problems[place] = _said(error)
            else:
                if not image.size:
                    problems[place] = "it has no pixels"
                    continue
                shapes[place] = image.shape
                if look:
                    values[np.unique(image[..., 0])] = place
        return values

    # TensorFlow's C++ code prints what it finds in damaged files.
    with quiet(), tf.device("CPU"), ThreadPoolExecutor() as pool:
        parts = list(pool.map(inspect_from, range(0, len(names), _AT_ONCE)))
    values = np.max(parts, axis=0) if parts else np.full(_VALUES, -1, np.int64)
    damaged = sorted(problems)
    return {
        "shapes": shapes,
        "damaged": np.array(damaged, np.int64),
        "said": np.array([problems[place] for place in damaged], np.str_),
        "values": values,
    }


def _said(error: BaseException) -> str:
    text = one_line(error).rpartition("}} ")[2]
    return text.partition(" [Op:")[0].strip().rstrip(".")


def unreadable(name: str, names: Sequence[str], problems: dict[int, str], request: Request) -> str:
    """Refuses files that cannot be read, or tells that they are left out.

    Example:
        ```python
        unreadable("photos", ["a.jpg"], {0: "Input is empty"}, Request(unreadable="skip"))
        # "1 file that cannot be read is left out (a.jpg: Input is empty)"
        ```

    Args:
        name: what messages call the data set.
        names: of all files.
        problems: from `Inspection`.
        request: says which of both.

    Raises:
        UsageError: there are such files, and the request does not skip them.
    """
    if not problems:
        return ""
    first = sorted(problems)[:_SHOWN]
    named = ", ".join(f"{names[place]}: {problems[place]}" for place in first)
    if len(problems) > _SHOWN:
        named += ", ..."
    several = "s that cannot be read" if len(problems) > 1 else " that cannot be read"
    if request.unreadable == "fail":
        raise UsageError(
            f"{name} has {len(problems):,} image file{several} ({named}): repair or remove "
            f"{'them' if len(problems) > 1 else 'it'}, or leave out what cannot be read with "
            'unreadable = "skip"'
        )
    verb = "are" if len(problems) > 1 else "is"
    return f"{len(problems):,} file{several} {verb} left out ({named})"


def common_channels(shapes: np.ndarray) -> Channels:
    """1 if every image is grey, with or without transparency; else 3.

    Example:
        >>> common_channels(np.array([[8, 8, 1], [8, 8, 3]]))
        3
    """
    return 1 if len(shapes) and shapes[:, 2].max() < _COLOURS else 3


def common_size(name: str, shapes: np.ndarray, request: Request) -> tuple[int, int]:
    """The size of all images: what was asked for, or what all files have.

    Example:
        >>> common_size("photos", np.array([[8, 9, 1], [8, 9, 3]]), Request())
        (8, 9)

    Raises:
        OpenSizeError: they differ, and no size was asked for.
    """
    if request.image_size:
        return request.image_size
    sizes = np.unique(shapes[:, :2], axis=0)
    if len(sizes) == 1:
        return int(sizes[0][0]), int(sizes[0][1])
    if request.usual_size:
        return request.usual_size
    least, most = shapes[:, :2].min(axis=0), shapes[:, :2].max(axis=0)
    raise OpenSizeError(
        f"the images of {name} vary in size, from {least[0]}x{least[1]} to {most[0]}x{most[1]}: "
        "give image_size, such as (64, 64)"
    )


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A column of image files, which stands for an array uint8 (n, height, width, channels).

    Attributes:
        paths: bytes (n,).
        shapes: int32 (n, 3), from `Inspection`.
        size: (height, width) that images are resized to.
        channels: 1 or 3.
        numbers: uint8 (256,), for masks: the class number of each pixel value. A mask is resized to
            the nearest pixel, and has no axis of channels.
    """

    paths: np.ndarray
    shapes: np.ndarray
    size: tuple[int, int]
    channels: Channels
    numbers: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        root: Path,
        names: Sequence[str],
        shapes: np.ndarray,
        size: tuple[int, int],
        channels: Channels,
        numbers: np.ndarray | None = None,
    ) -> ImageFiles:
        """A column of the files with these names."""
        paths = np.array([os.fsencode(root / name) for name in names], np.bytes_)
        return cls(paths, shapes, size, channels, numbers)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: np.ndarray) -> ImageFiles:
        return ImageFiles(
            self.paths[rows], self.shapes[rows], self.size, self.channels, self.numbers
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that it stands for."""
        last = () if self.numbers is not None else (self.channels,)
        return (len(self), *self.size, *last)

    @property
    def ndim(self) -> int:
        """The number of axes of that array."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of that array."""
        return np.dtype(np.uint8)

    @cached_property
    def _paths(self) -> tf.Tensor:
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.paths)

    def read(self, row: tf.Tensor) -> tf.Tensor:
        """Decodes the image of a row."""
        import tensorflow as tf

        content = tf.io.read_file(tf.gather(self._paths, row))
        if self.channels == _COLOURS:
            image = tf.io.decode_image(content, channels=_COLOURS, expand_animations=False)
        else:
            # The decoders of some formats cannot convert to one channel.
            image = tf.io.decode_image(content, expand_animations=False)
            image = self._greyscale(image) if (self.shapes[:, 2] != 1).any() else image
        image.set_shape([None, None, self.channels])
        if (self.shapes[:, :2] != self.size).any():
            if self.numbers is None:
                image = resize(image, self.size)
            else:
                image = tf.image.resize(image, self.size, method="nearest")
        image.set_shape([*self.size, self.channels])
        if self.numbers is None:
            return image
        return tf.gather(tf.constant(self.numbers), tf.cast(image[..., 0], tf.int32))

    def _greyscale(self, image: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.cond(
            tf.shape(image)[-1] < _COLOURS,
            lambda: image[..., :1],
            lambda: tf.image.rgb_to_grayscale(image[..., :_COLOURS]),
        )


class FileExamples(RandomAccess):
    """Examples of which some parts are image files, decoded when they are needed.

    Example:
        ```python
        photos = ImageFiles.of(root, names, shapes, (32, 32), 3)
        split = FileExamples(photos, labels)
        next(iter(split.ordered(4)))[0].shape  # (4, 32, 32, 3)
        ```

    Args:
        inputs: a tree of `ImageFiles` and of arrays (n, ...).
        targets: likewise.
        weights: a tree of arrays (n, ...), or None.
    """

    def __init__(self, inputs: Tree, targets: Tree, weights: Tree = None) -> None:
        import tensorflow as tf

        self._trees = tuple(tree for tree in (inputs, targets, weights) if tree is not None)

        self.element_spec = tuple(
            mapped(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), tree)
            for tree in self._trees
        )

    @property
    def targets(self) -> Tree:
        """The targets: arrays, or columns of files."""
        return self._trees[1]

    def __len__(self) -> int:
        return len(leaves(self._trees[0])[0])

    def select(self, rows: np.ndarray) -> FileExamples:
        """The examples with these numbers."""
        return FileExamples(*(mapped(lambda leaf: leaf[rows], tree) for tree in self._trees))

    @property
    def labels(self) -> np.ndarray | None:
        """The targets, if they are class numbers."""
        parts = leaves(self.targets)
        if len(parts) != 1 or isinstance(parts[0], ImageFiles):
            return None
        numbers = parts[0]
        return numbers if numbers.ndim == 1 and numbers.dtype == np.int64 else None

    @cached_property
    def _tensors(self) -> tuple[Tree, ...]:
        import tensorflow as tf

        def tensor(leaf: Any) -> Any:
            return leaf if isinstance(leaf, ImageFiles) else tf.constant(leaf)

        with tf.init_scope(), tf.device("CPU"):
            return tuple(mapped(tensor, tree) for tree in self._trees)

    def read(self, rows: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Batches of the examples with these numbers; several files are decoded at a time."""
        import tensorflow as tf

        trees = self._tensors

        def example(row: tf.Tensor) -> tuple[Tree, ...]:
            def part(leaf: Any) -> tf.Tensor:
                return leaf.read(row) if isinstance(leaf, ImageFiles) else tf.gather(leaf, row)

            return tuple(mapped(part, tree) for tree in trees)

        return rows.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(
            batch_size
        )


def resize(images: Any, size: tuple[int, int]) -> tf.Tensor:
    """Resizes uint8 images bilinearly; antialiasing uses all pixels when images shrink.

    Example:
        ```python
        resize(np.zeros((10, 8, 8, 3), np.uint8), (4, 4)).shape  # (10, 4, 4, 3)
        ```

    Args:
        images: uint8 (n, height, width, channels) or (height, width, channels).
        size: (height, width).

    Returns:
        uint8, rounded to the nearest.
    """
    import tensorflow as tf

    return tf.cast(tf.round(tf.image.resize(images, size, antialias=True)), tf.uint8)
