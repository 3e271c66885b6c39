"""Batches for training, whose order depends only on (seed, epoch), and for evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfprune.data.splits import Split
from tfprune.errors import UsageError, did_you_mean

CROP_PADDING = 4
"""Pixels of padding on each side before a random crop, as in He et al. 2016, section 4.2."""


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epochs: int = 1,
    first_epoch: int = 0,
    augment: Sequence[str] = (),
) -> tf.data.Dataset:
    """Shuffled and augmented batches of the epochs `first_epoch` to `epochs - 1`.

    Example:
        ```python
        train = data.load("digits").train
        images, labels = next(iter(data.batches(train, 128, seed=0, augment=["flip"])))
        images.shape, labels.shape  # (128, 8, 8, 1) and (128,)
        ```

    The images stay in memory as uint8. The content of an epoch is a pure function of the split, the
    batch size, `augment`, the seed and the number of the epoch. A stream that starts at a later
    epoch equals the end of a longer one, bit for bit.

    Args:
        split: usually the train split.
        batch_size: images in a batch; the last batch of an epoch may be smaller.
        seed: fixes the order and the augmentation.
        epochs: one more than the last epoch, counted from 0.
        first_epoch: the epoch to start at.
        augment: any of "crop" (pad each side with 4 pixels of value 0, then crop the original size
            at random) and "flip" (mirror left and right with probability 0.5), applied in this
            order. He et al. 2016 pad after subtracting the mean, which equals padding with the
            mean.

    Returns:
        `(epochs - first_epoch) * steps_per_epoch(split, batch_size)` pairs of images, float32
        (batch, height, width, channels), 0 to 255, and labels, int64 (batch,).

    Raises:
        UsageError: an augmentation is unknown, or the batch size is below 1.

    Source:
        He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385.
    """
    steps = steps_per_epoch(split, batch_size)
    augmentations = [_augmentation(name) for name in augment]
    images, labels = _on_cpu(split)

    def rows_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), seed=tf.stack([tf.cast(seed, tf.int64), epoch])
        )
        rows = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        return rows.enumerate(start=epoch * steps)

    def read(step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.gather(images, rows)
        for number, change in enumerate(augmentations):
            own_seed = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), step]), number)
            batch = change(batch, own_seed)
        return tf.cast(batch, tf.float32), tf.gather(labels, rows)

    return (
        tf.data.Dataset.range(first_epoch, epochs)
        .flat_map(rows_of)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(max(0, epochs - first_epoch) * steps))
        .prefetch(tf.data.AUTOTUNE)
    )


def seen(split: Split, count: int, *, seed: int, augment: Sequence[str] = ()) -> np.ndarray:
    """The first images of a training, shuffled and augmented.

    Example:
        ```python
        images = data.seen(data.load("digits").train, 1000, seed=0, augment=["flip"])
        images.shape  # (1000, 8, 8, 1)
        ```

    BatchNorm's statistics are recomputed on these images. Images without the augmentation of the
    training have other statistics than the weights have adapted to.

    Args:
        split: usually the train split.
        count: number of images; at most the size of the split.
        seed: as for `batches`.
        augment: as for `batches`.

    Returns:
        float32 (count, height, width, channels), 0 to 255.
    """
    count = min(count, len(split))
    images, _ = next(iter(batches(split, count, seed=seed, augment=augment)))
    return np.asarray(images)


def plain_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Batches in the order of the split, for evaluation.

    Example:
        ```python
        dataset = data.load("digits")
        model.evaluate(data.plain_batches(dataset.validation, 128))
        ```

    Args:
        split: any split.
        batch_size: images in a batch; the last batch may be smaller.

    Returns:
        Pairs of images, float32 (batch, height, width, channels), 0 to 255, and labels,
        int64 (batch,).

    Raises:
        UsageError: the batch size is below 1, or the split is empty.
    """
    steps_per_epoch(split, batch_size)
    return (
        tf.data.Dataset.from_tensor_slices(_on_cpu(split))
        .batch(batch_size)
        .map(
            lambda images, labels: (tf.cast(images, tf.float32), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """The number of batches in one epoch.

    Example:
        ```python
        steps_per_epoch(data.load("digits").train, 128)  # 11 for 1,293 images
        ```

    Raises:
        UsageError: the batch size is below 1, or the split is empty.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} must be 1 or more")
    if not len(split):
        raise UsageError("the split is empty: give a split with at least one image")
    return math.ceil(len(split) / batch_size)


def _on_cpu(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    # tf.data runs on the CPU. It would copy images from a GPU in each step.
    with tf.device("CPU"):
        return tf.constant(split.images), tf.constant(split.labels)


def _flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    mirrored = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    return tf.where(mirrored, tf.reverse(images, [2]), images)


def _crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    count, height, width = tf.unstack(tf.shape(images)[:3])
    margin = [CROP_PADDING, CROP_PADDING]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    corners = tf.random.stateless_uniform(
        [2, count, 1], seed, minval=0, maxval=2 * CROP_PADDING + 1, dtype=tf.int32
    )
    rows, columns = corners[0] + tf.range(height), corners[1] + tf.range(width)
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


AUGMENTATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "crop": _crop,
    "flip": _flip,
}
"""Functions that map uint8 images (batch, height, width, channels) and a seed, int64 (2,), to
augmented images."""


def _augmentation(name: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    if name not in AUGMENTATIONS:
        raise UsageError(f"unknown augmentation {name!r}: {did_you_mean(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
