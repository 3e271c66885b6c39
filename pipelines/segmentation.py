"""Segmentation: which pixels of a noisy picture belong to a handwritten digit, by a small U-Net."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

SIZE = 32
"""Height and width of a picture, in pixels."""

_INK = 6  # Of 16: what counts as a part of the digit.
_COUNTS = {"train": 1200, "validation": 200, "test": 200}


def pictures(seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    """Pictures with two digits each, on noise; the splits share no digit.

    Args:
        seed: of places and noise.
        scale: how many pictures there are, as a share of 1,600.

    Returns:
        Splits of images, uint8 (n, 32, 32, 1), and maps of classes, int64 (n, 32, 32).
    """
    rng = np.random.default_rng(seed)
    digits = rng.permutation(load_digits().images)
    parts = np.split(digits, [1200, 1500])
    splits: dict[str, Any] = {
        split: _pictures(rng, part, max(16, round(scale * count)))
        for (split, count), part in zip(_COUNTS.items(), parts, strict=True)
    }
    return {**splits, "classes": ["background", "digit"]}


def _pictures(
    rng: np.random.Generator, digits: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    images = rng.integers(0, 120, (count, SIZE, SIZE, 1)).astype(np.uint8)
    maps = np.zeros((count, SIZE, SIZE), np.int64)
    for image, marked in zip(images, maps, strict=True):
        for half in (0, SIZE // 2):
            digit = np.kron(digits[rng.integers(len(digits))], np.ones((2, 2)))
            row = rng.integers(0, SIZE - len(digit))
            place = (slice(row, row + len(digit)), slice(half, half + len(digit)))
            ink = digit >= _INK
            marked[place] = ink
            image[place][ink, 0] = 80 + 10 * digit[ink]
    return images, maps


def unet(input_shape: tuple[int, ...], classes: int, width: int = 8) -> keras.Model:
    """A U-Net of three levels (Ronneberger et al. 2015).

    Args:
        input_shape: of a picture.
        classes: of a pixel.
        width: filters of the first level.

    Source:
        https://arxiv.org/abs/1505.04597
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255)(inputs)
    kept = []
    for level in range(2):
        x = _block(x, width * 2**level)
        kept.append(x)
        x = layers.MaxPooling2D()(x)
    x = _block(x, width * 4)
    for level in (1, 0):
        x = layers.Conv2DTranspose(width * 2**level, 2, strides=2)(x)
        x = _block(layers.Concatenate()([x, kept[level]]), width * 2**level)
    return keras.Model(inputs, layers.Conv2D(classes, 1, name="logits")(x), name="unet")


def _block(x: Any, filters: int) -> Any:
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return x
