from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

from ..harness import assert_close, examples, outputs, randomised, run_slim_test
from ..models import chain, conv


def spatial(rank: int) -> keras.Model:
    """Every pooling, padding, cropping and repeating layer of a rank, between convolutions."""

    def kind(name: str, *arguments: object, **options: object) -> layers.Layer:
        return getattr(layers, f"{name}{rank}D")(*arguments, **options)

    # Keras 3.10 has none.
    there = hasattr(layers, f"AdaptiveMaxPooling{rank}D")
    adaptive = [("AdaptiveMaxPooling", 2), ("AdaptiveAveragePooling", 1)] if there else []
    return chain(
        kind("Conv", 4, 2, padding="same"),
        kind("MaxPooling", 2),
        kind("ZeroPadding", 1),
        kind("Conv", 4, 2, padding="same", activation="relu"),
        kind("UpSampling", 2),
        kind("AveragePooling", 2, padding="same"),
        kind("Cropping", 1),
        kind("Conv", 3, 1),
        *[kind(name, size) for name, size in adaptive],
        shape=(*[4] * rank, 2),
    )


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "spatial 1d": lambda: spatial(1),
    "spatial 2d": lambda: spatial(2),
    "spatial 3d": lambda: spatial(3),
    "upsampling bilinear": lambda: chain(
        conv(), layers.UpSampling2D(interpolation="bilinear"), conv(3)
    ),
    "global pooling": lambda: chain(
        conv(), layers.GlobalMaxPooling2D(keepdims=True), conv(5), layers.GlobalAveragePooling2D()
    ),
    "global pooling 1d": lambda: chain(
        layers.Conv1D(4, 2), layers.GlobalMaxPooling1D(), shape=(9, 2)
    ),
    "global pooling 3d": lambda: chain(
        layers.Conv3D(4, 2), layers.GlobalAveragePooling3D(keepdims=True), shape=(3, 3, 3, 1)
    ),
    "resizing": lambda: chain(
        conv(),
        layers.Resizing(4, 5),
        conv(),
        layers.Resizing(6, 6, pad_to_aspect_ratio=True, interpolation="nearest"),
        conv(3),
    ),
    "cropped": lambda: chain(conv(), layers.CenterCrop(4, 4), conv(3)),
    "augmented": lambda: chain(
        conv(),
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomPerspective(),
        layers.RandomErasing(),
        layers.RandomGaussianBlur(),
        layers.RandomElasticTransform(),
        conv(3),
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save=False)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_what_is_filled_in_is_not_silent(fill: float) -> None:
    model = chain(conv(), layers.Resizing(4, 6, pad_to_aspect_ratio=True, fill_value=fill), conv(3))
    run_slim_test(model, dies=None if fill else True, save=False)


def dead_first_channel(*after: layers.Layer) -> keras.Model:
    """The first filter of `made` is zero, its bias is not."""
    model = randomised(chain(conv(name="made"), *after, conv(name="reader")))
    made = model.get_layer("made")
    made.kernel.assign(np.asarray(made.kernel) * [0, 1, 1, 1])
    return model


@pytest.mark.parametrize("padded", [False, True])
def test_zero_padding_makes_a_constant_vary(padded: bool) -> None:
    """BatchNorm takes a constant to zero, but not the zeros around it."""
    padding = [layers.ZeroPadding2D(1)] if padded else []
    model = dead_first_channel(*padding, layers.BatchNormalization(name="norm"))
    norm, bias = model.get_layer("norm"), np.asarray(model.get_layer("made").bias)
    norm.moving_mean.assign(bias)
    norm.beta.assign(np.zeros(4))
    found = tfprune.plan(model, dead=True)
    assert found.removed == ({} if padded else {"made": [0]})
    inputs = examples(model)
    assert_close(outputs(tfprune.filters.rebuild(found), inputs), outputs(model, inputs), 1e-5)
