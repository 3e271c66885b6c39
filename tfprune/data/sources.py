"""Sources of images: embedded ones, or the data sets of tensorflow_datasets.

Importing it loads no TensorFlow, so that pipeline files are checked without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.data.splits import Split
from tfprune.errors import TfpruneError, UsageError, did_you_mean

if TYPE_CHECKING:
    import tensorflow as tf

_DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Source:
    """A data set that can be read.

    Example:
        ```python
        source = digits()
        source.read("train", None, 100).images.shape  # (100, 8, 8, 1)
        ```

    Attributes:
        origin: a description of the data set and its version.
        classes: the name of each label, in order.
        read: maps ("train" or "test", image size or None, limit or None) to the first `limit`
            images of the split.
    """

    origin: str
    classes: tuple[str, ...]
    read: Callable[[str, tuple[int, int] | None, int | None], Split]


def digits() -> Source:
    """The digits that scikit-learn contains, with a stratified test split of 20 %.

    Example:
        ```python
        digits().classes  # ("0", "1", ..., "9")
        ```
    """
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


EMBEDDED: dict[str, Callable[[], Source]] = {"digits": digits}
"""The sources that need no download, by the names that users write. Other names are those of
tensorflow_datasets."""


def open_source(name: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """The source of a name: an embedded one, or a data set of tensorflow_datasets.

    Example:
        ```python
        open_source("digits", None).origin  # "digits, embedded in scikit-learn 1.9.0"
        ```

    Raises:
        UsageError: there is no such data set.
        TfpruneError: it is missing and cannot be fetched.
    """
    return EMBEDDED[name]() if name in EMBEDDED else from_tfds(name, data_dir)


def from_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """A data set of tensorflow_datasets, downloaded and prepared if it is missing.

    Example:
        ```python
        source = from_tfds("cifar10", "/data/tfds")
        ```

    Args:
        name: the name of the data set.
        data_dir: as for `tfprune.data.load`.

    Raises:
        UsageError: the name is unknown, the data set is not one for image classification, or the
            directory cannot be used.
        TfpruneError: the data set cannot be prepared.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    path = data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    directory = Path(path).expanduser()
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"data directory {directory} is a file: name a directory")
    try:
        builder = tfds.builder(name, data_dir=directory)
    except (ValueError, AssertionError, ImportError) as error:
        raise UsageError(_unknown(name, error)) from None
    feature = _check_features(name, builder.info)
    try:
        # tensorflow_datasets reports downloads on stdout, which is for results.
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

    known = [*tfds.list_builders(with_community_datasets=False), *EMBEDDED]
    if name.partition(":")[0].partition("/")[0] in known:
        # The data set exists, but not its version or config.
        return f"data set {name!r} cannot be opened: {_line(error.__cause__ or error)}"
    hint = did_you_mean(name.lower(), known, "see tensorflow_datasets' catalog for names")
    return f"unknown data set {name!r}: {hint}"


def _check_features(name: str, info: Any) -> Any:
    """The image feature of a data set, which must pair one 8-bit image with one class label."""
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
    """Resizes uint8 images bilinearly; antialiasing uses all pixels when images shrink."""
    import tensorflow as tf

    return tf.cast(tf.round(tf.image.resize(images, size, antialias=True)), tf.uint8)


def _line(error: BaseException) -> str:
    """The type and the message of an error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
