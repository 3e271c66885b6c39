"""What a loaded set looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import UsageError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8, (n, height, width, channels), 0 to 255.
        labels: int64, (n,).

    Raises:
        UsageError: On another shape or dtype.
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
                f"labels must be int64 of shape {self.images.shape[:1]}, one an image, "
                f"not {self.labels.dtype} of shape {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification set, split into what may be trained on, chosen by, and reported.

    Attributes:
        name: The name it was loaded by.
        classes: The name of each label, in order.
        train: What weights are fitted to.
        validation: What epochs, ratios and variants are chosen by; held out of the train split.
        test: What is reported, and decides nothing.
        note: Where the images came from and how they were split, for a report.
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
    """The mean and the standard deviation of each channel, for normalising.

    Args:
        split: What to look at; the train split, so that nothing leaks from the others.

    Returns:
        Two float32 arrays of shape (channels,), in grey levels 0 to 255.
    """
    count = split.images[..., 0].size
    total = np.zeros(split.images.shape[-1], np.int64)
    squares = np.zeros_like(total)
    # Integers are exact, and parts keep the wider copy small.
    for part in np.array_split(split.images, max(1, len(split) // 1024)):
        wide = part.astype(np.int64)
        total += wide.sum(axis=(0, 1, 2))
        squares += np.square(wide).sum(axis=(0, 1, 2))
    mean = total / count
    std = np.sqrt(squares / count - np.square(mean))
    return mean.astype(np.float32), std.astype(np.float32)
