"""Batches for training, whose order depends on (seed, epoch) alone, and for evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfprune.data._splits import Split
from tfprune.errors import UsageError, did_you_mean

CROP_PADDING = 4
"""Pixels of zeros on each side before a random crop, as in He et al. 2016, section 4.2."""


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

    The images stay in memory as uint8. What an epoch holds is a pure function of the split,
    the batch size, `augment`, the seed and the epoch's number; a stream that starts at a later
    epoch continues one that was cut off, bit for bit.

    Args:
        split: Usually the train split.
        batch_size: Images in a batch; the last batch of an epoch holds what remains.
        seed: Chooses the order and the augmentation.
        epochs: One past the last epoch, counted from 0.
        first_epoch: Where to start.
        augment: Any of "crop" (pad each side with 4 black pixels, then cut out the original size
            at random) and "flip" (mirror left and right with probability one half), both of He et
            al. 2016, applied in the order given. Black is pixel value 0, where the paper pads
            after subtracting the mean, with the mean.

    Returns:
        `(epochs - first_epoch) * steps_per_epoch(split, batch_size)` pairs of
        images, float32 (batch, height, width, channels), 0 to 255, and labels, int64 (batch,).

    Raises:
        UsageError: On an unknown augmentation or a batch size below 1.
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
    """The first images that a training would see, shuffled and augmented.

    BatchNorm's statistics are taken anew on these: on images that are not augmented like those of
    the training they are others than the weights have learnt to live with.

    Args:
        split: Usually the train split.
        count: How many images; all of the split where it has fewer.
        seed: As for `batches`.
        augment: As for `batches`.

    Returns:
        float32 (count, height, width, channels), 0 to 255.
    """
    count = min(count, len(split))
    images, _ = next(iter(batches(split, count, seed=seed, augment=augment)))
    return np.asarray(images)


def plain_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Batches in the split's own order, for evaluation.

    Args:
        split: Any split.
        batch_size: Images in a batch; the last batch holds what remains.

    Returns:
        Pairs of images, float32 (batch, height, width, channels), 0 to 255, and labels,
        int64 (batch,).

    Raises:
        UsageError: On a batch size below 1.
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
    """How many batches one epoch has.

    Raises:
        UsageError: On a batch size below 1, or an empty split.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} must be 1 or more")
    if not len(split):
        raise UsageError("the split is empty: there is nothing to make batches of")
    return math.ceil(len(split) / batch_size)


def _on_cpu(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    # tf.data runs on the CPU: images that TensorFlow put on a GPU would be copied back each step.
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
"""Each takes uint8 images (batch, height, width, channels) and a seed, int64 (2,)."""


def _augmentation(name: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    if name not in AUGMENTATIONS:
        raise UsageError(f"unknown augmentation {name!r}: {did_you_mean(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
