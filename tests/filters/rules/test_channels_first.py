"""Channels first: what runs so on a CPU runs here; the weights of the rest equal channels last."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

from ..harness import randomised, run_slim_test

FIRST = {"data_format": "channels_first"}


def turned(*middle: layers.Layer, channels: int = 4) -> keras.Model:
    """Dense layers make the channels, and a permutation puts them first."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Dense(channels, name="made"),
            layers.Permute((3, 1, 2)),
            *middle,
            layers.Flatten(**FIRST),
            layers.Dense(3),
            layers.Dense(2),
        ]
    )


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "flatten": turned,
    "batch norm": lambda: turned(layers.BatchNormalization(axis=1), layers.ReLU()),
    "group norm": lambda: turned(layers.GroupNormalization(2, axis=1)),
    "prelu": lambda: turned(layers.PReLU(shared_axes=[2, 3])),
    "padding and cropping": lambda: turned(
        layers.ZeroPadding2D(1, **FIRST), layers.Cropping2D(((0, 1), (1, 0)), **FIRST)
    ),
    "upsampling": lambda: turned(layers.UpSampling2D(2, **FIRST)),
    "resizing": lambda: turned(layers.Resizing(3, 3, **FIRST)),
    "global pooling": lambda: turned(
        layers.GlobalAveragePooling2D(keepdims=True, **FIRST), layers.GlobalMaxPooling2D(**FIRST)
    ),
    "softmax over positions": lambda: turned(layers.Activation("softmax")),
    "reshaped": lambda: turned(layers.Reshape((4, 16))),
    "concatenated": lambda: concatenated(),
}


def concatenated() -> keras.Model:
    x = keras.Input((4, 4, 2))
    y = [layers.Permute((3, 1, 2))(layers.Dense(3)(x)) for _ in range(2)]
    y = layers.GlobalMaxPooling2D(**FIRST)(layers.Concatenate(axis=1)(y))
    return keras.Model(x, layers.Dense(2)(y))


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    dies = None if "softmax" in construct else True
    run_slim_test(CONSTRUCTS[construct](), dies=dies, save=False)


def test_layer_norm_is_inexact() -> None:
    run_slim_test(turned(layers.LayerNormalization(axis=1)), exact=False, dies=None, save=False)


def both(*stack: Callable[[dict[str, str], int], layers.Layer], shape: tuple[int, ...]) -> None:
    """Slims a stack in either format, and compares the weights."""
    models = []
    for data_format, axis in (("channels_last", -1), ("channels_first", 1)):
        size = (shape[-1], *shape[:-1]) if axis == 1 else shape
        kind = {"data_format": data_format}
        parts = [make(kind, axis) for make in stack]
        models.append(keras.Sequential([keras.Input(size), *parts, layers.Dense(2)]))
    last, first = models
    randomised(first)
    last.set_weights(first.get_weights())
    slims = [tfprune.remove_filters(each, {"a": [1], "b": [0, 3]}) for each in (last, first)]
    for one, other in zip(slims[0].get_weights(), slims[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert slims[1].count_params() < first.count_params()
    assert tfprune.macs(slims[0]) == tfprune.macs(slims[1])


def test_plane_convolutions() -> None:
    both(
        lambda kind, _: layers.Conv2D(4, 3, name="a", **kind),
        lambda _, axis: layers.BatchNormalization(axis=axis),
        lambda kind, _: layers.DepthwiseConv2D(2, depth_multiplier=2, **kind),
        lambda kind, _: layers.MaxPooling2D(**kind),
        lambda kind, _: layers.SeparableConv2D(6, 2, name="b", **kind),
        lambda kind, _: layers.Conv2D(6, 1, groups=6, **kind),
        lambda kind, _: layers.Conv2DTranspose(4, 2, strides=2, activation="relu", **kind),
        lambda kind, _: layers.Conv2D(4, 1, groups=2, **kind),
        lambda kind, _: layers.Flatten(**kind),
        shape=(9, 9, 2),
    )


def test_line_convolutions() -> None:
    both(
        lambda kind, _: layers.Conv1D(4, 3, name="a", **kind),
        lambda kind, _: layers.DepthwiseConv1D(2, **kind),
        lambda kind, _: layers.AveragePooling1D(2, **kind),
        lambda kind, _: layers.SeparableConv1D(5, 2, name="b", **kind),
        lambda kind, _: layers.Conv1DTranspose(3, 2, **kind),
        lambda kind, _: layers.GlobalAveragePooling1D(**kind),
        shape=(12, 2),
    )


def test_space_convolutions() -> None:
    both(
        lambda kind, _: layers.Conv3D(4, 2, name="a", **kind),
        lambda kind, _: layers.UpSampling3D(2, **kind),
        lambda kind, _: layers.Conv3DTranspose(5, 2, name="b", **kind),
        lambda kind, _: layers.GlobalMaxPooling3D(**kind),
        shape=(3, 3, 3, 2),
    )
