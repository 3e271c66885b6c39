"""The same function in another spelling is the same function."""

from __future__ import annotations

import functools

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

from tfprune.model import activations
from tfprune.model.activations import acts_alone, means, register_pointwise, spreads

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
    found = [getattr(space, name) for space in SPACES if hasattr(space, name)]
    assert found
    for function in found:
        assert acts_alone(function) == (name not in MIXING | SHAPES)
        assert spreads(function) == (name in MIXING)


def test_numbers_given_beforehand_change_nothing() -> None:
    leaky = functools.partial(keras.activations.leaky_relu, negative_slope=0.1)
    assert acts_alone(leaky)
    assert acts_alone(functools.partial(leaky, negative_slope=0.2))
    assert acts_alone(functools.partial(ops.gelu, approximate=False))
    assert spreads(functools.partial(ops.softmax, axis=-1))
    # Whatever an array does, it may do to each channel another thing.
    assert not acts_alone(functools.partial(keras.activations.leaky_relu, negative_slope=[1, 2]))
    assert not acts_alone(functools.partial(ops.add, ops.ones((3,))))


def test_layers_as_activations() -> None:
    assert acts_alone(layers.LeakyReLU())
    assert acts_alone(layers.Activation("tanh"))
    assert not acts_alone(layers.Activation("softmax"))
    # Its slopes are weights, one for each channel.
    assert not acts_alone(layers.PReLU())


def test_own_functions_are_not_known_until_they_are_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def relu(x: object) -> object:
        return ops.clip(x, 0.0, 0.5)

    monkeypatch.setattr(activations, "_registered", set())
    assert not acts_alone(relu)
    assert not means(relu, "relu")
    register_pointwise(relu)
    assert acts_alone(relu)


def test_none_is_linear() -> None:
    assert acts_alone(None)
    assert not means(None, "linear")
