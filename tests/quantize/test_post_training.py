"""Equalised channels change no output, and corrected biases give back the means."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tests.filters.harness import assert_close, outputs, randomised
from tfprune.errors import UsageError
from tfprune.quantize.post_training import _pairs
from tfprune.weights import round_weights


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)


def net() -> keras.Model:
    """All that a scale may pass, and a sum and a ReLU6 that it may not."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, use_bias=False, name="a")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.ZeroPadding2D()(layers.DepthwiseConv2D(3, activation="relu", name="b")(x))
    x = layers.MaxPooling2D()(layers.Conv2D(8, 1, name="c")(x))
    x = short = layers.LeakyReLU()(layers.Conv2D(8, 1, name="d")(x))
    x = layers.Add()([short, layers.Conv2D(8, 1, activation="relu", name="e")(x)])
    x = layers.ReLU(6.0)(layers.Conv2D(5, 1, name="f")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(7, 1, name="g")(x))
    return randomised(keras.Model(inputs, layers.Dense(4, name="h")(x)))


def uneven() -> keras.Model:
    """`net` with channels of ranges that differ by 1,000."""
    model = net()
    for name in "abcdefg":
        kernel, *bias = model.get_layer(name).get_weights()
        count = kernel.shape[-2] if name == "b" else kernel.shape[-1]
        factor = np.geomspace(1, 1000, count)
        shaped = factor[:, None] if name == "b" else factor
        model.get_layer(name).set_weights([kernel * shaped, *(each * factor for each in bias)])
    return model


def test_pairs_are_what_a_scale_passes_between() -> None:
    found = [
        (pair.first.name, pair.norm.name if pair.norm else "", pair.second.name)
        for pair in _pairs(net())
    ]
    assert found == [("a", "norm", "b"), ("b", "", "c"), ("c", "", "d"), ("g", "", "h")]


def test_equalising_changes_no_output_and_makes_ranges_alike(images: np.ndarray) -> None:
    model = uneven()
    even = tfprune.equalize(model)
    assert_close(outputs(even, [images]), outputs(model, [images]), 1e-4)
    kernel = np.abs(np.asarray(even.get_layer("c").kernel))
    written, read = kernel.max((0, 1, 2)), np.abs(np.asarray(even.get_layer("d").kernel))
    np.testing.assert_allclose(written, read.max((0, 1, 3)), rtol=0.01)
    before = np.abs(np.asarray(model.get_layer("c").kernel)).max((0, 1, 2))
    assert written.max() / written.min() < before.max() / before.min() / 5


def test_zeros_stay_and_dead_channels_are_left_alone(images: np.ndarray) -> None:
    model = uneven()
    layer = model.get_layer("c")
    kernel, bias = layer.get_weights()
    kernel[..., 2], kernel[0, 0, 0, :] = 0, 0
    layer.set_weights([kernel, bias])
    even = tfprune.equalize(model)
    np.testing.assert_array_equal(np.asarray(even.get_layer("c").kernel) == 0, kernel == 0)
    assert_close(outputs(even, [images]), outputs(model, [images]), 1e-4)


def test_nothing_to_equalise_is_said() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu6"), layers.Dense(2)])
    with pytest.raises(UsageError, match="has no two layers whose channels can be equalised"):
        tfprune.equalize(model)


@pytest.mark.parametrize("bits", [3, 8])
def test_rounded_weights_with_corrected_biases_have_the_means_of_the_model(
    images: np.ndarray, bits: int
) -> None:
    model = net()
    corrected = tfprune.correct_biases(model, images, bits=bits)
    for each, wanted in zip(corrected.weights, model.weights, strict=True):
        if each.path.endswith("kernel"):
            np.testing.assert_array_equal(np.asarray(each), np.asarray(wanted))
    wanted, *_ = outputs(model, [images])
    off = {
        name: np.abs((outputs(round_weights(each, bits), [images])[0] - wanted).mean(0)).max()
        for name, each in {"as it is": model, "corrected": corrected}.items()
    }
    assert off["corrected"] < 1e-4 * np.ptp(wanted)
    assert off["as it is"] > 5 * off["corrected"]


def test_what_has_no_bias_is_named(images: np.ndarray) -> None:
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu", name="bare")(x)
    model = randomised(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    with pytest.warns(UserWarning, match="correct_biases: bare stay as they are"):
        tfprune.correct_biases(model, images)


@pytest.mark.parametrize(
    ("bits", "message"), [(1, "bits=1 is out of range"), (9, "bits=9 is out of range")]
)
def test_bits_are_those_of_files(images: np.ndarray, bits: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tfprune.correct_biases(net(), images, bits=bits)


def test_sequential_models_are_graphs_like_others(images: np.ndarray) -> None:
    """They have called their layers before the graph does."""
    model = randomised(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(6, 3, activation="relu", name="a"),
                layers.Conv2D(5, 3, use_bias=False, name="b"),
                layers.BatchNormalization(name="norm"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, name="c"),
            ]
        )
    )
    assert [(pair.first.name, pair.second.name) for pair in _pairs(model)] == [
        ("a", "b"),
        ("b", "c"),
    ]
    assert_close(outputs(tfprune.equalize(model), [images]), outputs(model, [images]), 1e-4)
    corrected = tfprune.correct_biases(model, images, bits=3)
    for name in ("a", "norm", "c"):
        before, after = (each.get_layer(name).get_weights()[1] for each in (model, corrected))
        assert not np.allclose(before, after)


class Standardised(layers.Conv2D):
    """Its outputs do not grow with its kernel."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


class Squared(layers.BatchNormalization):
    """Not linear in gamma and beta."""

    def call(self, inputs: Any, **given: Any) -> Any:
        return keras.ops.square(super().call(inputs, **given))


class Capped(layers.ReLU):
    """A ReLU that a scale does not pass."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.minimum(super().call(inputs), 0.1)


class CappedPool(layers.MaxPooling2D):
    """A pooling that a scale does not pass."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.minimum(super().call(inputs), 0.1)


class Doubled(layers.Dense):
    """Adds its bias twice."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs) + self.bias


@pytest.mark.parametrize(
    "own",
    [
        Standardised(6, 3, name="own"),
        Squared(name="own"),
        Capped(name="own"),
        CappedPool(name="own"),
        Doubled(6, name="own"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_subclasses_that_compute_in_a_way_of_their_own_are_left_alone(
    images: np.ndarray, own: keras.Layer
) -> None:
    x = inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(own(layers.Conv2D(6, 3, name="a")(x)))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3, activation="relu", name="b")(x))
    model = randomised(keras.Model(inputs, layers.Dense(3, name="c")(x)))
    even = tfprune.equalize(model)
    assert_close(outputs(even, [images]), outputs(model, [images]), 1e-4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        corrected = tfprune.correct_biases(model, images, bits=3)
    before, after = (each.get_layer("own").get_weights() for each in (model, corrected))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    named = any("correct_biases: own stay" in str(each.message) for each in said)
    assert named == hasattr(own, "kernel")


def test_all_that_is_rounded_is_corrected_or_named(images: np.ndarray) -> None:
    x = inputs = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="deep")], name="in")
    x = layers.SeparableConv2D(4, 3, name="parted")(inner(x))
    x = layers.Conv2DTranspose(4, 2, name="back")(x)
    model = randomised(keras.Model(inputs, layers.Dense(2, name="c")(layers.Flatten()(x))))
    with pytest.warns(UserWarning, match="correct_biases: in/deep, parted, back stay as they are"):
        tfprune.correct_biases(model, images)
