"""A loaded data set: its splits, and statistics of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import UsageError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Example:
        ```python
        Split(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
        ```

    Attributes:
        images: uint8 (n, height, width, channels), 0 to 255.
        labels: int64 (n,).

    Raises:
        UsageError: an array has another shape or dtype.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise UsageError(
                "images must be uint8 of shape (n, height, width, channels), "
                f"not {self.images.dtype} of shape {self.images.shape}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != np.int64:
            raise UsageError(
                f"labels must be int64 of shape {self.images.shape[:1]}, one for each image, "
                f"not {self.labels.dtype} of shape {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set for image classification with three splits.

    Example:
        ```python
        dataset = data.load("digits", seed=0)
        len(dataset.train), len(dataset.validation), len(dataset.test)  # (1293, 144, 360)
        ```

    Attributes:
        name: the name that it was loaded by.
        classes: the name of each label, in order.
        train: the images that weights are trained on.
        validation: the images that decide between epochs, ratios and variants; held out of the
            train split.
        test: the images for reported figures; they decide nothing.
        note: the origin of the images and how they were split, for reports.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    note: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def statistics(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each channel, for normalisation.

    Example:
        ```python
        dataset = data.load("digits")
        mean, std = data.statistics(dataset.train)
        model = zoo.build("vgg", dataset.image_shape, 10, mean=mean, std=std)
        ```

    Args:
        split: the train split, so that the model learns nothing about the others.

    Returns:
        Two float32 arrays of shape (channels,), in the unit of pixels, 0 to 255.
    """
    count = split.images[..., 0].size
    total = np.zeros(split.images.shape[-1], np.int64)
    squares = np.zeros_like(total)
    # Sums of integers are exact, and parts keep the int64 copy small.
    for part in np.array_split(split.images, max(1, len(split) // 1024)):
        wide = part.astype(np.int64)
        total += wide.sum(axis=(0, 1, 2))
        squares += np.square(wide).sum(axis=(0, 1, 2))
    mean = total / count
    std = np.sqrt(squares / count - np.square(mean))
    return mean.astype(np.float32), std.astype(np.float32)
