"""Loads a data set, and holds out the splits that its source does not have."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.data.sources import find_source
from tfprune.data.sources.base import CACHE_MIB, Cache, Request, Unreadable
from tfprune.data.splits import (
    TEST_SHARE,
    Dataset,
    RandomAccess,
    Split,
    Stream,
    first,
    leaves,
    unreadable_in_parts,
)
from tfprune.errors import UsageError
from tfprune.files import document_hash

# The test split is the same whatever seed chooses the validation split.
_TEST_SEED = 0


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    validation: float = 0.1,
    image_size: tuple[int, int] | None = None,
    usual_size: tuple[int, int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    cache: Cache | None = None,
    cache_mib: float = CACHE_MIB,
    unreadable: Unreadable = "fail",
) -> Dataset:
    """Loads the splits of a data set.

    Example:
        ```python
        dataset = data.load("digits", validation=0.2, seed=0)
        dataset.train.inputs.shape  # (1149, 8, 8, 1)
        ```

    Args:
        name: "digits", which scikit-learn contains (1,797 images of 8x8x1); a data set of
            tensorflow_datasets, such as "cifar10", which is downloaded and prepared if it is
            missing; a folder of images; a file of arrays; an index; or "FILE.py:FUNCTION". See
            `tfprune.data.sources`.
        data_dir: where tensorflow_datasets stores its data sets; None means the environment
            variable TFDS_DATA_DIR, or else the default of tensorflow_datasets.
        validation: share of the train split that is held out where the source has no validation
            split, stratified by class if there are classes; 0 to 1.
        image_size: (height, width) to resize images to.
        usual_size: the same for images that vary in size, if `image_size` is not given; such as
            what the model takes. One of the two is required if the sizes vary.
        limit: the largest number of examples in each split, for a quick trial.
        seed: chooses the validation examples. The test split is the same for every seed.
        options: arguments of the source, such as those of a user's function.
        cache: "memory" or "disk" keeps what was read from files and decoded; None reads it again in
            each epoch.
        cache_mib: the largest size of what is cached or taken into memory, in MiB.
        unreadable: "fail" refuses a folder with files that cannot be read, "skip" leaves them out
            and counts them.

    Returns:
        The train, validation and test splits.

    Raises:
        UsageError: an argument is wrong, or the data set cannot be used.
        TfpruneError: the data is missing and cannot be downloaded, or it cannot be read.
    """
    if not 0 < validation < 1:
        raise UsageError(f"validation={validation} must be a share between 0 and 1, such as 0.1")
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise UsageError(f"image_size={image_size} must be (height, width), such as (32, 32)")
    if limit is not None and limit < 1:
        raise UsageError(f"limit={limit} must be 1 example or more")
    request = Request(
        data_dir=data_dir,
        validation=validation,
        image_size=image_size,
        usual_size=usual_size,
        limit=limit,
        options=options or {},
        cache=cache,
        cache_mib=cache_mib,
        unreadable=unreadable,
    )
    source = find_source(name, request)
    source.check()
    opened = source.open()
    notes = []
    parts = dict(opened.splits)
    if "train" not in parts:
        raise UsageError(f"{name} has no train split: give one")
    if "test" not in parts:
        parts["train"], parts["test"] = _hold_out(parts["train"], TEST_SHARE, _TEST_SEED, "test")
        notes.append(f"{TEST_SHARE:.3g} of the train split are the test split")
    # All that stratification needs, as long as the limit is what there is at most.
    parts["train"] = first(parts["train"], request.wanted("train", len(opened.classes)))
    held_out = "validation" not in parts
    if held_out:
        parts["train"], parts["validation"] = _hold_out(
            parts["train"], validation, seed, "validation"
        )
    train, kept, test = (first(parts[split], limit) for split in ("train", "validation", "test"))
    unit = "images" if _are_images(train) else "examples"
    chosen = f" ({validation:.3g} of the train split, {_how(train, seed)})" if held_out else ""
    note = (
        f"{opened.origin}: {len(train):,} train, {len(kept):,} validation{chosen}, "
        f"{len(test):,} test {unit}"
    )
    if image_size:
        note += f", resized to {image_size[0]}x{image_size[1]}"
    if limit:
        note += f"; every split capped at {limit:,} {unit}"
    for more in [*notes, opened.left_out]:
        note += f"; {more}" if more else ""
    dataset = Dataset(name, opened.classes, train, kept, test, note)
    return dataclasses.replace(dataset, fingerprint=_named(source, dataset, seed))


def _named(source: Any, dataset: Dataset, seed: int) -> str | None:
    """The fingerprint of the source, of how it was asked for, and of how it was split."""
    content = source.fingerprint()
    if content is None:
        return None
    request = dataclasses.asdict(source.request)
    # Where data are kept, and how they are read, changes no example.
    for same in ("data_dir", "cache", "cache_mib"):
        del request[same]
    return document_hash(
        {"content": content, "request": request, "seed": seed, "note": dataset.note}
    )


def _how(train: Split, seed: int) -> str:
    """How validation examples were held out."""
    if isinstance(train, Stream):
        return "its first examples"
    return f"held out{'' if train.labels is None else ' stratified'} with seed {seed}"


def _are_images(split: Split) -> bool:
    specs = leaves(split.element_spec[0])
    return len(specs) == 1 and len(specs[0].shape) == 3 and specs[0].dtype == "uint8"


def _hold_out(split: Split, share: float, seed: int, what: str) -> tuple[Split, Split]:
    """Divides a split into a rest and a share, stratified if there are classes."""
    from sklearn.model_selection import train_test_split

    if isinstance(split, Stream):
        # A stream cannot be read in another order: its beginning is held out.
        count = max(1, round(len(split) * share))
        return split.part(count, len(split) - count), split.part(0, count)
    if not isinstance(split, RandomAccess):
        raise unreadable_in_parts(split)
    try:
        kept, held_out = train_test_split(
            np.arange(len(split)), test_size=share, stratify=split.labels, random_state=seed
        )
    except ValueError as error:
        raise UsageError(
            f"{what}={share} with seed={seed} cannot split {len(split):,} train examples: {error}"
        ) from error
    return split.select(kept), split.select(held_out)
