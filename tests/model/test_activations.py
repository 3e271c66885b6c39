"""The same function in another spelling is the same function."""

from __future__ import annotations

import functools

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

from tfprune.model import activations
from tfprune.model.activations import (
    is_activation,
    is_pointwise,
    mixes_channels,
    register_pointwise,
)

PUBLISHED = sorted(
    name
    for name, value in vars(keras.activations).items()
    if callable(value) and name not in ("get", "serialize", "deserialize")
)
MIXING = {"softmax", "log_softmax", "sparsemax"}
# Its output has half of the channels.
SHAPES = {"glu"}
SPACES = [keras.activations, ops, ops.nn, ops.numpy, tf, tf.nn, tf.math]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_activation_of_keras_is_known_in_every_spelling(name: str) -> None:
    functions = [getattr(space, name) for space in SPACES if hasattr(space, name)]
    assert functions
    for function in functions:
        assert is_pointwise(function) == (name not in MIXING | SHAPES)
        assert mixes_channels(function) == (name in MIXING)


def test_bound_numbers_change_nothing() -> None:
    leaky = functools.partial(keras.activations.leaky_relu, negative_slope=0.1)
    assert is_pointwise(leaky)
    assert is_pointwise(functools.partial(leaky, negative_slope=0.2))
    assert is_pointwise(functools.partial(ops.gelu, approximate=False))
    assert mixes_channels(functools.partial(ops.softmax, axis=-1))
    # An array may change each channel differently.
    assert not is_pointwise(functools.partial(keras.activations.leaky_relu, negative_slope=[1, 2]))
    assert not is_pointwise(functools.partial(ops.add, ops.ones((3,))))


def test_layers_as_activations() -> None:
    assert is_pointwise(layers.LeakyReLU())
    assert is_pointwise(layers.Activation("tanh"))
    assert not is_pointwise(layers.Activation("softmax"))
    # Its slopes are weights, one for each channel.
    assert not is_pointwise(layers.PReLU())


def test_own_functions_are_not_known_until_they_are_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def relu(x: object) -> object:
        return ops.clip(x, 0.0, 0.5)

    monkeypatch.setattr(activations, "_registered", set())
    assert not is_pointwise(relu)
    assert not is_activation(relu, "relu")
    register_pointwise(relu)
    assert is_pointwise(relu)


def test_none_is_linear() -> None:
    assert is_pointwise(None)
    assert not is_activation(None, "linear")
