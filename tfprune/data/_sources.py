"""Where images come from: scikit-learn's digits, or any set of tensorflow_datasets."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfprune.data._splits import Split
from tfprune.errors import TfpruneError, UsageError, did_you_mean

_DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Source:
    """`read(split, image_size, limit)` gives the first `limit` images of "train" or "test"."""

    origin: str
    classes: tuple[str, ...]
    read: Callable[[str, tuple[int, int] | None, int | None], Split]


def digits() -> Source:
    import sklearn
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    parts = train_test_split(
        np.arange(len(labels)), test_size=_DIGITS_TEST_SHARE, stratify=labels, random_state=0
    )
    rows = dict(zip(("train", "test"), parts, strict=True))

    def read(split: str, image_size: tuple[int, int] | None, limit: int | None) -> Split:
        chosen = rows[split][:limit]
        resized = images[chosen]
        if image_size:
            resized = _resize(resized, image_size).numpy()
        return Split(resized, labels[chosen])

    classes = tuple(str(name) for name in digits.target_names)
    return Source(f"digits, embedded in scikit-learn {sklearn.__version__}", classes, read)


def from_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> Source:
    import tensorflow_datasets as tfds

    where = data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    directory = Path(where).expanduser()
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"data directory {directory} is a file: name a directory")
    try:
        builder = tfds.builder(name, data_dir=directory)
    except (ValueError, AssertionError, ImportError) as error:
        raise UsageError(_unknown(name, error)) from None
    feature = _check_features(name, builder.info)
    try:
        # tensorflow_datasets prints what it downloads; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except (
        PermissionError,
        FileNotFoundError,
        NotADirectoryError,
        tf.errors.PermissionDeniedError,
    ) as error:
        raise UsageError(
            f"{name} is not in {directory} and cannot be written there ({_line(error)}): "
            "set data_dir or TFDS_DATA_DIR to a directory that holds it or can be written"
        ) from error
    except Exception as error:
        raise TfpruneError(
            f"{name} is not in {directory} and could not be prepared there ({_line(error)}): "
            "go online once, or set data_dir or TFDS_DATA_DIR to a directory that holds it"
        ) from error
    splits = builder.info.splits
    test = "test" if "test" in splits else "validation"
    if "train" not in splits or test not in splits:
        raise UsageError(
            f"{name} has the splits {', '.join(splits)}: take a set with 'train' and 'test'"
        )

    def read(split: str, image_size: tuple[int, int] | None, limit: int | None) -> Split:
        if image_size is None and None in feature.shape:
            raise UsageError(
                f"the images of {name} vary in size: give image_size, such as (64, 64)"
            )
        stored = builder.as_dataset(
            split=test if split == "test" else split, as_supervised=True, shuffle_files=False
        )
        if limit:
            stored = stored.take(limit)
        if image_size:
            stored = stored.map(
                lambda image, label: (_resize(image, image_size), label), tf.data.AUTOTUNE
            )
        try:
            parts = list(stored.batch(1024).as_numpy_iterator())
        except (tf.errors.OpError, OSError) as error:
            raise TfpruneError(
                f"{name} in {directory} cannot be read ({_line(error)}): "
                "delete its folder there and load it again"
            ) from error
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Split(images, labels.astype(np.int64))

    origin = f"{builder.info.full_name} of tensorflow_datasets {tfds.__version__}"
    if test == "validation":
        origin += ", which has no test split: its validation split serves as test"
    return Source(origin, tuple(builder.info.features[builder.info.supervised_keys[1]].names), read)


def _unknown(name: str, error: Exception) -> str:
    import tensorflow_datasets as tfds

    known = [*tfds.list_builders(with_community_datasets=False), "digits"]
    if name.partition(":")[0].partition("/")[0] in known:
        # The set exists, its version or config does not.
        return f"data set {name!r} cannot be opened: {_line(error.__cause__ or error)}"
    hint = did_you_mean(name.lower(), known, "see tensorflow_datasets' catalog for names")
    return f"unknown data set {name!r}: {hint}"


def _check_features(name: str, info: Any) -> Any:
    """Returns the image feature of a set that pairs one 8-bit image with one class label."""
    import tensorflow_datasets as tfds

    match info.supervised_keys:
        case (str(image), str(label)):
            feature = info.features[image]
            if (
                isinstance(feature, tfds.features.Image)
                and isinstance(info.features[label], tfds.features.ClassLabel)
                and feature.np_dtype == np.uint8
                and feature.shape[-1] is not None
            ):
                return feature
    raise UsageError(
        f"{name} does not pair one 8-bit image with one class label "
        f"(its supervised keys are {info.supervised_keys}): take an image-classification set"
    )


def _resize(images: Any, size: tuple[int, int]) -> tf.Tensor:
    """Bilinear with antialiasing, so that shrinking does not skip pixels; uint8 as before."""
    return tf.cast(tf.round(tf.image.resize(images, size, antialias=True)), tf.uint8)


def _line(error: BaseException) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
