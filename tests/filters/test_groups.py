from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

from .harness import randomised
from .models import conv, head, image


def residual() -> keras.Model:
    x = image()
    y = conv(4, name="start")(x)
    z = conv(4, name="end")(conv(5, name="inside")(y))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(layers.Add()([y, z]))))


def test_coupled_layers_are_one_group() -> None:
    groups = tfprune.channel_groups(residual())
    assert [group.layers for group in groups] == [("start", "end"), ("inside",), ("out",)]
    assert [group.size for group in groups] == [4, 5, 2]
    assert [group.removable.tolist() for group in groups] == [[True] * 4, [True] * 5, [False] * 2]
    assert groups.frozen == {"out": "it is an output of the model"}
    assert len(groups) == 3
    assert groups[1:][0] is groups[1]
    assert repr(groups).endswith(": 3, 2 removable>")


def test_a_concatenation_met_by_an_add_splits_the_group() -> None:
    x = image()
    both = layers.Concatenate()([conv(2, name="a")(x), conv(3, name="b")(x)])
    model = keras.Model(x, head(layers.Add()([both, conv(5, name="c")(x)])))
    groups = tfprune.channel_groups(model)
    assert [group.layers for group in groups][:2] == [("a", "c"), ("b", "c")]
    assert [group.size for group in groups][:2] == [2, 3]


def test_a_layer_in_a_nested_model_is_named_by_its_path() -> None:
    inner = keras.Sequential([keras.Input((6, 6, 4)), conv(3, name="deep")], name="inner")
    x = image()
    groups = tfprune.channel_groups(keras.Model(x, head(inner(conv(4, name="top")(x)))))
    assert list(groups.producers)[:2] == ["top", "inner/deep"]


def test_dead_is_what_no_reader_hears() -> None:
    """By a zero filter, or by zeros in the kernel that reads it."""
    model = randomised(keras.Sequential([keras.Input((3,)), *map(layers.Dense, (4, 4, 2))]))
    first, second, _ = model.layers
    first.kernel.assign(np.asarray(first.kernel) * [0, 1, 1, 1])
    first.bias.assign(np.asarray(first.bias) * [0, 1, 1, 1])
    second.kernel.assign(np.asarray(second.kernel) * [[1], [1], [0], [1]])
    groups = tfprune.channel_groups(model)
    assert groups.dead()[groups.producers[first.name]].tolist() == [True, False, True, False]
    assert not groups.dead()[groups.producers[second.name]].any()


def test_a_zero_filter_with_a_bias_is_a_constant_and_lives() -> None:
    model = randomised(keras.Sequential([keras.Input((3,)), *map(layers.Dense, (4, 2))]))
    model.layers[0].kernel.assign(np.zeros((3, 4)))
    assert not tfprune.channel_groups(model).dead().any()


class Subclassed(keras.Model):
    def call(self, x: object) -> object:
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Subclassed(name="mine"),
            "model 'mine' is a subclassed Subclassed, which has no graph to follow: build it with "
            "the functional API or as a Sequential model",
        ),
        (
            keras.Sequential([layers.Dense(2)], name="mine"),
            "model 'mine' is not built: begin it with keras.Input(shape), or call it once on data",
        ),
        ("mine.keras", "expected a Keras model, got str"),
    ],
)
def test_models_without_a_graph(model: keras.Model, message: str) -> None:
    for attempt in (
        tfprune.channel_groups,
        tfprune.macs,
        lambda each: tfprune.slim(each, filters=0.5),
        lambda each: tfprune.remove_filters(each, {}),
    ):
        with pytest.raises(tfprune.UsageError) as error:
            attempt(model)
        assert str(error.value) == message


def _scaled(model: keras.Model) -> set[str]:
    groups = tfprune.channel_groups(model)
    return {f"{each.variable.path}" for each in groups.scaled()}


def test_gamma_and_beta_carry_the_scale_of_the_filters_before_them() -> None:
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="normed")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="bn")(y))
    y = layers.Conv2D(4, 3, name="bare", activation="relu")(y)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    assert {path.split("/")[0] for path in _scaled(model)} == {"bn", "bare", "out"}


def test_a_filter_that_someone_else_reads_too_keeps_its_scale() -> None:
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="conv")(x)
    z = layers.Add()([y, layers.BatchNormalization(name="bn")(y)])
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(z)))
    assert {path.split("/")[0] for path in _scaled(model)} == {"conv", "bn", "out"}


def test_without_gamma_the_filter_keeps_its_scale() -> None:
    x = keras.Input((8, 8, 3))
    y = layers.BatchNormalization(scale=False, name="bn")(layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    assert "conv" in {path.split("/")[0] for path in _scaled(model)}
