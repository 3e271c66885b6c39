from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

from ..harness import randomised, run_slim_test
from ..models import chain

KINDS = [layers.SimpleRNN, layers.GRU, layers.LSTM]


@pytest.mark.parametrize("kind", KINDS)
def test_units_go_with_their_gates_and_what_they_remember(kind: type) -> None:
    model = chain(
        layers.Dense(4), kind(4, return_sequences=True), kind(3), layers.Dense(3), shape=(3, 2)
    )
    groups = run_slim_test(model, save=kind is layers.LSTM)
    assert [group.size for group in groups] == [4, 4, 3, 3, 2]


def test_the_slices_of_an_lstm() -> None:
    model = randomised(chain(layers.Dense(3, name="a"), layers.LSTM(3, name="b"), shape=(3, 2)))
    slim = tfprune.remove_filters(model, {"a": [0], "b": [1]})
    columns = [0, 2, 3, 5, 6, 8, 9, 11]
    kernel, recurrent, bias = model.get_layer("b").get_weights()
    found = slim.get_layer("b").get_weights()
    np.testing.assert_array_equal(found[0], kernel[1:, columns])
    np.testing.assert_array_equal(found[1], recurrent[[0, 2]][:, columns])
    np.testing.assert_array_equal(found[2], bias[columns])


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "gru with one bias": lambda: chain(
        layers.GRU(4, reset_after=False, return_sequences=True), layers.GRU(3), shape=(3, 2)
    ),
    "without a bias": lambda: chain(layers.LSTM(4, use_bias=False), layers.Dense(3), shape=(3, 2)),
    "relu": lambda: chain(layers.SimpleRNN(4, activation="relu"), layers.Dense(3), shape=(3, 2)),
    "convolutional 1d": lambda: chain(
        layers.ConvLSTM1D(3, 2, return_sequences=True), layers.ConvLSTM1D(2, 2), shape=(2, 4, 2)
    ),
    "convolutional 2d": lambda: chain(
        layers.ConvLSTM2D(3, 2, padding="same", return_sequences=True),
        layers.ConvLSTM2D(2, 2),
        layers.Conv2D(3, 1),
        shape=(2, 3, 3, 2),
    ),
    "bidirectional": lambda: chain(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.Bidirectional(layers.GRU(3), merge_mode="sum"),
        layers.Dense(3),
        shape=(3, 2),
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save=construct == "bidirectional")


def test_a_state_that_is_handed_on() -> None:
    x = keras.Input((3, 2))
    y, h, c = layers.LSTM(4, return_state=True, return_sequences=True, name="one")(x)
    z = layers.LSTM(4, name="two")(y, initial_state=[h, c])
    groups = run_slim_test(keras.Model(x, layers.Dense(2)(z)), dies=None)
    assert groups[0].layers == ("one", "two")


def test_steps_that_are_masked() -> None:
    """Keras adds the mask that an Embedding makes to the arguments of whoever reads it."""
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(4, 4, mask_zero=True)(x)
    y = layers.LSTM(4, return_sequences=True)(y)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))
    assert len(run_slim_test(model)) == 3


def softened() -> layers.Layer:
    return layers.LSTM(4, recurrent_activation="softmax", name="mine")


FROZEN: dict[str, tuple[Callable[[], layers.Layer], str, str]] = {
    "softmax": (
        softened,
        "mine",
        "the activation softmax is not known to act on each channel alone "
        "(see tfprune.register_pointwise)",
    ),
    "a cell": (
        lambda: layers.RNN(layers.LSTMCell(4), name="mine"),
        "held",
        "mine is an RNN around a cell, which has no rule",
    ),
    "a wrapped cell": (
        lambda: layers.Bidirectional(layers.RNN(layers.LSTMCell(4)), name="mine"),
        "held",
        "mine wraps a RNN, which has no rule",
    ),
}


@pytest.mark.reliability("layers that stay, each with its reason", "right")
@pytest.mark.parametrize("case", FROZEN)
def test_frozen(case: str) -> None:
    build, frozen, reason = FROZEN[case]
    model = chain(layers.Dense(3), layers.Dense(3, name="held"), build(), shape=(3, 2))
    assert run_slim_test(model).frozen[frozen] == reason


def test_a_state_kept_between_batches_is_frozen() -> None:
    x = keras.Input(batch_shape=(3, 3, 2))
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(4, stateful=True, name="mine")(x)))
    found = tfprune.channel_groups(model).frozen["mine"]
    assert found == "mine keeps its state between batches"
