"""Loading a set and holding its validation images out."""

from __future__ import annotations

import math
import os

import numpy as np

from tfprune.data._sources import digits, from_tfds
from tfprune.data._splits import Dataset, Split
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
    """Loads whole splits into memory.

    Args:
        name: "digits", which scikit-learn embeds (1,797 images of 8x8x1), or any
            image-classification set of tensorflow_datasets, such as "cifar10"; a missing one is
            downloaded and prepared.
        data_dir: Where tensorflow_datasets keeps its sets; else the environment variable
            TFDS_DATA_DIR, else tensorflow_datasets' own default.
        validation: Share of the train split that is held out of it, stratified by class.
        image_size: (height, width) to resize to; needed where sizes vary.
        limit: At most so many images in each split, for a quick try.
        seed: Chooses the validation images. The test split is the same for every seed.

    Returns:
        The train, validation and test splits.

    Raises:
        UsageError: If an argument is wrong, or the set is none of image classification.
        TfpruneError: If the data is missing and cannot be fetched, or cannot be read.
    """
    if not 0 < validation < 1:
        raise UsageError(f"validation={validation} must be a share between 0 and 1, such as 0.1")
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise UsageError(f"image_size={image_size} must be (height, width), such as (32, 32)")
    if limit is not None and limit < 1:
        raise UsageError(f"limit={limit} must be 1 image or more")
    source = digits() if name == "digits" else from_tfds(name, data_dir)
    # Enough images that each split reaches the limit and stratifying finds every class twice.
    wanted = limit and math.ceil(
        max(limit, 2 * len(source.classes)) / min(validation, 1 - validation)
    )
    kept, held_out = _hold_out(source.read("train", image_size, wanted), validation, seed)
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
    """Splits off a stratified `share`; the two parts are disjoint and cover the split."""
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
