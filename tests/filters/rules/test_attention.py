from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers

import tfprune

from ..harness import run_slim_test
from ..models import chain


def attending(attention: layers.Layer, **names: str) -> keras.Model:
    """Each of query, value and key has a layer of its own."""
    x = keras.Input((3, 2))
    parts = {key: layers.Dense(4, name=name)(x) for key, name in names.items()}
    y = attention(parts.pop("query"), parts.pop("value"), **parts)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Dense(3)(y))))


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "query and value": lambda: attending(layers.MultiHeadAttention(2, 3), query="a", value="b"),
    "key too": lambda: attending(
        layers.MultiHeadAttention(2, 3, value_dim=2, use_bias=False), query="a", value="b", key="c"
    ),
    "output shape": lambda: attending(
        layers.MultiHeadAttention(2, 3, output_shape=5), query="a", value="b"
    ),
    "grouped queries": lambda: attending(
        layers.GroupQueryAttention(2, 4, 2), query="a", value="b", key="c"
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    groups = run_slim_test(CONSTRUCTS[construct](), save=construct == "output shape")
    assert all(group.removable.all() for group in groups[:-1])


def test_a_transformer_block() -> None:
    """The residual stream is one group; LayerNorm is what is inexact."""
    x = keras.Input((3, 2))
    start = layers.Dense(6, name="start")(x)
    y = layers.LayerNormalization()(start)
    y = layers.Add()([start, layers.MultiHeadAttention(2, 2, name="heads")(y, y, y)])
    z = layers.Dense(6, name="down")(layers.Dense(7, activation="gelu")(y))
    z = layers.GlobalAveragePooling1D()(layers.Add()([y, z]))
    groups = run_slim_test(keras.Model(x, layers.Dense(2)(z)), exact=False, dies=None)
    assert groups[0].layers == ("start", "heads", "down")
    assert groups[0].removable.all()


def test_einsum_dense() -> None:
    model = chain(
        layers.EinsumDense("btc,cd->btd", (3, 4), bias_axes="d", activation="relu"),
        layers.EinsumDense("btc,ctd->btd", (3, 6)),
        layers.EinsumDense("btc,cde->btde", (3, 2, 3), bias_axes="e"),
        shape=(3, 2),
    )
    assert [group.size for group in run_slim_test(model)] == [4, 6, 3, 2]


@pytest.mark.parametrize("equation", ["btc,cd->bdt", "btc,td->bdc"])
def test_einsum_dense_that_has_no_rule(equation: str) -> None:
    shape = (4, 3 if equation.endswith("t") else 4)
    strange = layers.EinsumDense(equation, shape, name="mine")
    model = chain(layers.Dense(4), layers.Dense(4, name="held"), strange, shape=(3, 2))
    assert run_slim_test(model).frozen["held"] == f"mine computes {equation}, which has no rule"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.Dot, "mine multiplies and sums whole channel vectors"),
        (layers.Attention, "mine compares whole channel vectors with each other"),
    ],
)
def test_products_of_channel_vectors_are_frozen(layer: type, reason: str) -> None:
    x = keras.Input((3, 2))
    y = [layers.Dense(4, name=name)(layers.Dense(3)(x)) for name in ("one", "two")]
    options = {"axes": 2} if layer is layers.Dot else {}
    z = layers.Dense(2)(layers.Flatten()(layer(name="mine", **options)(y)))
    groups = run_slim_test(keras.Model(x, z))
    assert groups.frozen["one"] == groups.frozen["two"] == reason


def test_several_output_axes_are_frozen() -> None:
    heads = layers.MultiHeadAttention(2, 3, output_shape=(2, 3), name="mine")
    found = tfprune.channel_groups(attending(heads, query="a", value="b")).frozen
    assert found["a"] == found["b"] == "mine gives several axes"
