"""Two inputs and two outputs: a digit and a hint, its class and how much ink it has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits


def digits_with_hints(seed: int = 0) -> dict[str, Any]:
    """The digits of scikit-learn, each with the ink in its rows as a second input.

    Args:
        seed: of the splits.

    Returns:
        Splits of the inputs "image", uint8 (n, 8, 8, 1), and "rows", float32 (n, 8), and of the
        targets "digit", int64 (n,), and "ink", float32 (n,): the mean of the pixels, 0 to 1.
    """
    table = load_digits()
    order = np.random.default_rng(seed).permutation(len(table.target))
    pixels = table.images[order]
    inputs = {
        "image": (pixels[..., None] * (255 / 16)).astype(np.uint8),
        "rows": pixels.mean(axis=2).astype(np.float32) / 16,
    }
    targets = {
        "digit": table.target[order].astype(np.int64),
        "ink": (pixels.mean(axis=(1, 2)) / 16).astype(np.float32),
    }
    bounds = {"train": (0, 1200), "validation": (1200, 1500), "test": (1500, None)}
    return {
        split: tuple(
            {name: array[begin:end] for name, array in tree.items()} for tree in (inputs, targets)
        )
        for split, (begin, end) in bounds.items()
    }


def two_ends(width: int = 16) -> keras.Model:
    """A CNN for the image, joined by what is known of its rows.

    Args:
        width: filters of the first convolution.
    """
    image, rows = keras.Input((8, 8, 1), name="image"), keras.Input((8,), name="rows")
    x = layers.Rescaling(1 / 255)(image)
    for filters in (width, 2 * width):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    hint = layers.Dense(width, activation="relu")(rows)
    x = layers.Concatenate()([layers.Flatten()(x), hint])
    x = layers.Dense(2 * width, activation="relu")(x)
    digit = layers.Dense(10, activation="softmax", name="digit")(x)
    ink = layers.Dense(1, name="ink")(x)
    inputs, outputs = {"image": image, "rows": rows}, {"digit": digit, "ink": ink}
    return keras.Model(inputs, outputs, name="two_ends")
