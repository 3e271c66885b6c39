from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers

from ..harness import run_slim_test
from ..models import conv, head, image


def merged(merges: list[layers.Layer], channels: tuple[int, ...]) -> keras.Model:
    """Each merge joins convolutions of its own."""
    x = image()
    y = [conv(4)(merge([conv(each)(x) for each in channels])) for merge in merges]
    return keras.Model(x, head(layers.Concatenate()(y) if len(y) > 1 else y[0]))


def residual_stage() -> keras.Model:
    """Two blocks with identity, then one with a projection, as in a ResNet."""

    def block(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
        y = conv(filters, strides=strides, use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(conv(filters, use_bias=False)(y))
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
            x = layers.BatchNormalization()(x)
        return layers.ReLU()(layers.Add()([x, y]))

    x = image(3)
    y = layers.ReLU()(layers.BatchNormalization()(conv(4, use_bias=False)(x)))
    for filters, strides in ((4, 1), (4, 1), (6, 2)):
        y = block(y, filters, strides)
    return keras.Model(x, head(y))


def squeeze_and_excite(keepdims: bool) -> keras.Model:
    x = image()
    y = conv(6, activation="relu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=keepdims)(y)
    gate = layers.Dense(3, activation="relu")(gate)
    gate = layers.Dense(6, activation="sigmoid")(gate)
    return keras.Model(x, head(layers.Multiply()([y, gate])))


def split_by_add() -> keras.Model:
    """A concatenation of 2 + 4 added to 6: the conv of 6 falls into two groups."""
    x = image()
    both = layers.Concatenate()([conv(2, name="two")(x), conv(4, name="four")(x)])
    y = layers.Add()([both, conv(6, name="six")(x)])
    return keras.Model(x, head(y))


def crossed_concats() -> keras.Model:
    """2 + 4 channels added to 4 + 2: four channels of a layer end up in several groups."""
    x = image()
    a, b, c, d = (conv(filters)(x) for filters in (2, 4, 4, 2))
    y = layers.Add()([layers.Concatenate()([a, b]), layers.Concatenate()([c, d])])
    return keras.Model(x, head(conv()(y)))


def dense_net() -> keras.Model:
    x = y = image(3)
    for _ in range(3):
        new = conv(3)(layers.ReLU()(layers.BatchNormalization()(y)))
        y = layers.Concatenate()([y, new])
    return keras.Model(x, head(y))


def inverted_residual() -> keras.Model:
    x = image()
    y = start = conv(4)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 1)(y)))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(4, 1)(y))
    return keras.Model(x, head(layers.Add()([start, y])))


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "merges": lambda: merged(
        [layers.Add(), layers.Subtract(), layers.Average(), layers.Multiply()], (4, 4)
    ),
    "merges of three": lambda: merged([layers.Maximum(), layers.Minimum()], (4, 4, 4)),
    "concatenate": lambda: merged([layers.Concatenate()], (4, 3, 2)),
    "concatenate other axis": lambda: merged([layers.Concatenate(axis=1)], (4, 4)),
    "spread over all channels": lambda: merged([layers.Multiply()], (4, 1)),
    "residual stage": residual_stage,
    "squeeze and excite": lambda: squeeze_and_excite(keepdims=True),
    "squeeze and excite flat": lambda: squeeze_and_excite(keepdims=False),
    "split by add": split_by_add,
    "crossed concatenations": crossed_concats,
    "densenet": dense_net,
    "inverted residual": inverted_residual,
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save=construct == "residual stage")


def spread_from_the_input() -> keras.Model:
    x = image(3)
    y = layers.Multiply(name="gate")([x, conv(1, name="held")(conv(name="free")(x))])
    return keras.Model(x, head(y))


def spread_over_others() -> keras.Model:
    x = image()
    y = conv(name="free")(x)
    return keras.Model(x, head(conv()(layers.Multiply(name="gate")([y, conv(1, name="held")(y)]))))


@pytest.mark.parametrize("build", [spread_from_the_input, spread_over_others])
def test_what_is_spread_over_channels_is_frozen(build: Callable[[], keras.Model]) -> None:
    groups = run_slim_test(build(), save=False)
    assert groups.frozen["held"] == "gate spreads it over all channels"
    assert "free" not in groups.frozen


def test_a_partly_frozen_layer_says_how_much_of_it() -> None:
    x = image()
    a, b = conv(2, name="a")(x), conv(4, name="b")(x)
    both = layers.Add()([layers.Concatenate()([a, b]), conv(6, name="c")(x)])
    model = keras.Model(x, [head(both), layers.Lambda(lambda x: x / 2, name="mine")(a)])
    groups = run_slim_test(model, save=False)
    reason = "mine is a Lambda, whose function nobody can look into"
    assert groups.frozen["a"] == reason
    assert groups.frozen["c"] == f"2 of 6: {reason}"
    assert "b" not in groups.frozen
