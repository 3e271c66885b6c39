"""Batches for training, whose order depends only on (seed, epoch), and for evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfprune.data.splits import Split, Tree, leaves, mapped
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

    The content of an epoch is a pure function of the split, the batch size, `augment`, the seed and
    the number of the epoch. A stream that starts at a later epoch equals the end of a longer one,
    bit for bit.

    Args:
        split: usually the train split.
        batch_size: examples in a batch; the last batch of an epoch may be smaller.
        seed: fixes the order and the augmentation.
        epochs: one more than the last epoch, counted from 0.
        first_epoch: the epoch to start at.
        augment: any of "crop" (pad each side with 4 pixels of value 0, then crop the original size
            at random) and "flip" (mirror left and right with probability 0.5), applied in this
            order to the only input, an image. He et al. 2016 pad after subtracting the mean, which
            equals padding with the mean. Targets that are maps of the same size are mirrored with
            their image; they cannot be cropped, since no class stands for the padding.

    Returns:
        `(epochs - first_epoch) * steps_per_epoch(split, batch_size)` tuples of inputs, targets and,
        if the split has them, sample weights. Bytes (uint8) become float32, 0 to 255, and float64
        becomes float32.

    Raises:
        UsageError: an augmentation is unknown or does not fit the examples, or the batch size is
            below 1.

    Source:
        He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385.
    """
    steps = steps_per_epoch(split, batch_size)
    change = _changes(split, augment)

    def augmented(step: tf.Tensor, batch: tuple[Tree, ...]) -> tuple[Tree, ...]:
        for number, apply in enumerate(change):
            batch = apply(
                batch, tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), step]), number)
            )
        return _ready(*batch)

    raw = split.shuffled(batch_size, seed=seed, first_epoch=first_epoch, epochs=epochs)
    return (
        raw.enumerate(start=first_epoch * steps)
        .map(augmented, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(max(0, epochs - first_epoch) * steps))
        .prefetch(tf.data.AUTOTUNE)
    )


def seen(split: Split, count: int, *, seed: int, augment: Sequence[str] = ()) -> Tree:
    """The inputs of the first examples of a training, shuffled and augmented.

    Example:
        ```python
        images = data.seen(data.load("digits").train, 1000, seed=0, augment=["flip"])
        images.shape  # (1000, 8, 8, 1)
        ```

    BatchNorm's statistics are recomputed on them. Images without the augmentation of the training
    have other statistics than the weights have adapted to.

    Args:
        split: usually the train split.
        count: number of examples; at most the size of the split.
        seed: as for `batches`.
        augment: as for `batches`.

    Returns:
        A tree of arrays (count, ...), as `batches` gives the inputs.
    """
    count = min(count, len(split))
    inputs, *_ = next(batches(split, count, seed=seed, augment=augment).as_numpy_iterator())
    return inputs


def plain_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Batches in the order of the split, for evaluation.

    Example:
        ```python
        dataset = data.load("digits")
        model.evaluate(data.plain_batches(dataset.validation, 128))
        ```

    Args:
        split: any split.
        batch_size: examples in a batch; the last batch may be smaller.

    Returns:
        Tuples of inputs, targets and, if the split has them, sample weights, with the dtypes of
        `batches`.

    Raises:
        UsageError: the batch size is below 1, or the split is empty.
    """
    steps = steps_per_epoch(split, batch_size)
    return (
        split.ordered(batch_size)
        .map(_ready, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(steps))
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
        raise UsageError("the split is empty: give a split with at least one example")
    return math.ceil(len(split) / batch_size)


def _ready(*batch: Tree) -> tuple[Tree, ...]:
    """A batch with the dtypes that models are trained on."""

    def cast(leaf: tf.Tensor) -> tf.Tensor:
        return tf.cast(leaf, tf.float32) if leaf.dtype in (tf.uint8, tf.float64) else leaf

    inputs, *rest = batch
    return mapped(cast, inputs), *rest


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
    cut = tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
    # The gathers forget the size, and Flatten of Keras 3.10 needs it.
    return tf.ensure_shape(cut, images.shape)


AUGMENTATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "crop": _crop,
    "flip": _flip,
}
"""Functions that map uint8 images (batch, height, width, channels) and a seed, int64 (2,), to
augmented images."""


def _changes(
    split: Split, augment: Sequence[str]
) -> list[Callable[[tuple[Tree, ...], tf.Tensor], tuple[Tree, ...]]]:
    """Functions that augment a batch, given a seed, int64 (2,)."""
    if not augment:
        return []
    specs = leaves(split.element_spec[0])
    if len(specs) != 1 or len(specs[0].shape) != 3:
        shapes = ", ".join(str(tuple(spec.shape)) for spec in specs)
        raise UsageError(
            f"augment={list(augment)} is for examples that are one image each, and these have "
            f"inputs of the shape {shapes}: leave it out"
        )
    size = tuple(specs[0].shape[:2])
    maps = [
        spec
        for spec in leaves(split.element_spec[1])
        if len(spec.shape) >= 2 and tuple(spec.shape[:2]) == size
    ]
    return [_change(_augmentation(name), name, bool(maps), size) for name in augment]


def _change(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], name: str, maps: bool, size: Any
) -> Callable[[tuple[Tree, ...], tf.Tensor], tuple[Tree, ...]]:
    if maps and name != "flip":
        raise UsageError(
            f'augment = "{name}" pads images, and no class of the maps that are the targets stands '
            "for the padding: leave it out, or augment in a function of your own, FILE.py:FUNCTION"
        )

    def apply(batch: tuple[Tree, ...], seed: tf.Tensor) -> tuple[Tree, ...]:
        def with_image(leaf: tf.Tensor) -> tf.Tensor:
            if leaf.shape.rank is None or leaf.shape.rank < 3 or tuple(leaf.shape[1:3]) != size:
                return leaf
            # A map may lack the axis of channels.
            return (
                function(leaf, seed)
                if leaf.shape.rank == 4
                else function(leaf[..., None], seed)[..., 0]
            )

        inputs, targets, *weights = batch
        return (
            mapped(lambda leaf: function(leaf, seed), inputs),
            mapped(with_image, targets),
            *(mapped(with_image, tree) for tree in weights),
        )

    return apply


def _augmentation(name: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    if name not in AUGMENTATIONS:
        raise UsageError(f"unknown augmentation {name!r}: {did_you_mean(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
