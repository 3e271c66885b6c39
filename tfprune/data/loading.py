"""Loads a data set and holds out its validation images."""

from __future__ import annotations

import math
import os

import numpy as np

from tfprune.data.sources import digits, from_tfds
from tfprune.data.splits import Dataset, Split
from tfprune.errors import UsageError


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    validation: float = 0.1,
    image_size: tuple[int, int] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads the splits of a data set into memory.

    Example:
        ```python
        dataset = data.load("digits", validation=0.2, seed=0)
        dataset.train.images.shape  # (1149, 8, 8, 1)
        ```

    Args:
        name: "digits", which scikit-learn contains (1,797 images of 8x8x1), or an image
            classification data set of tensorflow_datasets, such as "cifar10"; it is downloaded and
            prepared if it is missing.
        data_dir: where tensorflow_datasets stores its data sets; None means the environment
            variable TFDS_DATA_DIR, or else the default of tensorflow_datasets.
        validation: share of the train split that is held out, stratified by class; 0 to 1.
        image_size: (height, width) to resize to; required if the sizes vary.
        limit: the largest number of images in each split, for a quick trial.
        seed: chooses the validation images. The test split is the same for every seed.

    Returns:
        The train, validation and test splits.

    Raises:
        UsageError: an argument is wrong, or the data set is not one for image classification.
        TfpruneError: the data is missing and cannot be downloaded, or it cannot be read.
    """
    if not 0 < validation < 1:
        raise UsageError(f"validation={validation} must be a share between 0 and 1, such as 0.1")
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise UsageError(f"image_size={image_size} must be (height, width), such as (32, 32)")
    if limit is not None and limit < 1:
        raise UsageError(f"limit={limit} must be 1 image or more")
    source = digits() if name == "digits" else from_tfds(name, data_dir)
    # With this number of images, each split can reach the limit, and stratification finds each
    # class twice.
    count = limit and math.ceil(
        max(limit, 2 * len(source.classes)) / min(validation, 1 - validation)
    )
    kept, held_out = _hold_out(source.read("train", image_size, count), validation, seed)
    train, held_out, test = (
        Split(split.images[:limit], split.labels[:limit])
        for split in (kept, held_out, source.read("test", image_size, limit))
    )
    note = (
        f"{source.origin}: {len(train):,} train, {len(held_out):,} validation "
        f"({validation:.3g} of the train split, held out stratified with seed {seed}), "
        f"{len(test):,} test images"
    )
    if image_size:
        note += f", resized to {image_size[0]}x{image_size[1]}"
    if limit:
        note += f"; every split capped at {limit:,} images"
    return Dataset(name, source.classes, train, held_out, test, note)


def _hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divides a split into a rest and a stratified `share`."""
    from sklearn.model_selection import train_test_split

    try:
        parts = train_test_split(
            np.arange(len(split)), test_size=share, stratify=split.labels, random_state=seed
        )
    except ValueError as error:
        raise UsageError(
            f"validation={share} with seed={seed} cannot split {len(split):,} train images: {error}"
        ) from error
    kept, held_out = (Split(split.images[rows], split.labels[rows]) for rows in parts)
    return kept, held_out
