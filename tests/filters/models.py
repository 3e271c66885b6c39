"""Small models out of which the tests of filter pruning are made."""

from __future__ import annotations

import keras
from keras import layers


def image(channels: int = 2, size: int = 6) -> keras.KerasTensor:
    return keras.Input((size, size, channels))


def head(x: keras.KerasTensor, units: int = 2) -> keras.KerasTensor:
    if len(x.shape) > 2:
        x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(units)(x)


def chain(*middle: layers.Layer, shape: tuple[int, ...] = (6, 6, 2)) -> keras.Model:
    """A Sequential model with a flat dense head."""
    return keras.Sequential([keras.Input(shape), *middle, layers.Flatten(), layers.Dense(2)])


def conv(filters: int = 4, size: int = 3, **options: object) -> layers.Layer:
    return layers.Conv2D(filters, size, padding="same", **options)


def frozen_between(*middle: layers.Layer) -> keras.Model:
    """`free` may go; `held` meets what is tested."""
    return chain(conv(name="free"), conv(name="held"), *middle)
