"""`slim` and its targets, and random graphs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune import devices, zoo
from tfprune.filters import plan_counted
from tfprune.model.graph import named_layers
from tfprune.slimming import plan

from .filters.harness import assert_close, outputs, randomised, run_slim_test

TARGETS = "filters, macs, params, dead, latency, milliseconds, bytes, cycles, sram, flash"


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return randomised(keras.Sequential([keras.Input((4,)), *dense(6, 6, 2)], name="mlp"))


def dense(*units: int) -> list[layers.Layer]:
    return [layers.Dense(width, name=f"dense{i or ''}") for i, width in enumerate(units)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "filters=0 is not a share to keep: give a number in 0..1"),
        ({"macs": 1.5}, "macs=1.5 is not a share to keep: give a number in 0..1"),
        ({"params": -1}, "params=-1 is not a share to keep: give a number in 0..1"),
        ({}, f"give exactly one target of {TARGETS}, not none"),
        ({"filters": None, "dead": False}, f"give exactly one target of {TARGETS}, not none"),
        (
            {"filters": 0.5, "dead": True},
            f"give exactly one target of {TARGETS}, not filters and dead",
        ),
        (
            {"latency": 0.5, "macs": 0.5},
            f"give exactly one target of {TARGETS}, not macs and latency",
        ),
        (
            {"latency": 0.5, "rounds": 2},
            "rounds has no meaning for the target latency: leave it out",
        ),
        (
            {"macs": 0.5, "threads": 2},
            "threads has no meaning for the target macs: leave it out",
        ),
        ({"latency": 1.5}, "latency=1.5 is not a share to keep: give a number in 0..1"),
        (
            {"macs": 0.01},
            "macs=0.01 cannot be reached: the least is 0.097 of the original, since 1 layer is "
            "frozen (see `tfprune inspect`)",
        ),
        (
            {"macs": 0.2, "minimum": 4, "exclude": "dense*"},
            "macs=0.2 cannot be reached: the least is 1.000 of the original, since 1 layer is "
            "frozen (see `tfprune inspect`) and minimum=4 and exclude=['dense*']",
        ),
        ({"filters": 0.5, "scope": "all"}, "scope='all' is unknown: choose one of layer, global"),
        ({"filters": 0.5, "minimum": 0}, "minimum=0 is not a number of channels: give 1 or more"),
        ({"filters": 0.5, "rounds": 0}, "rounds=0 is not a number of rounds: give 1 or more"),
        (
            {"dead": True, "rounds": 2},
            "rounds has no meaning for the target dead: leave it out",
        ),
        (
            {"filters": 0.5, "exclude": "densely"},
            "exclude: model 'mlp' has no layer 'densely': did you mean 'dense'?",
        ),
        (
            {"filters": 0.5, "exclude": "x*"},
            "exclude: model 'mlp' has no layer 'x*': see `tfprune inspect`",
        ),
        ({"filters": 0.5, "round_to": 0}, "round_to=0 is not a number of channels: give 1 or more"),
    ],
)
def test_bad_targets(model: keras.Model, options: dict[str, float], message: str) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.slim(model, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("options", [{"macs": 0.5}, {"params": 0.5}])
def test_a_share_of_the_cost(model: keras.Model, options: dict[str, float]) -> None:
    slim = tfprune.slim(model, **options)
    cost = tfprune.macs if "macs" in options else keras.Model.count_params
    assert 0.3 * cost(model) < cost(slim) <= 0.5 * cost(model)


def test_plan_and_slim_take_the_same_arguments() -> None:
    taken = [inspect.signature(function).parameters for function in (tfprune.plan, tfprune.slim)]
    assert [*taken[0].values()] == [*taken[1].values()]
    # Each option of a planner is an argument.
    planners = {name for planner in (plan_counted, devices.plan) for name in _parameters(planner)}
    assert planners - {"target", "progress"} <= {*taken[0]}
    with pytest.raises(TypeError, match="unexpected keyword argument 'mac'"):
        tfprune.slim(keras.Model(), mac=0.5)


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [*inspect.signature(function).parameters]


def test_what_makes_no_channels_cannot_be_excluded() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.ReLU(name="relu")])
    with pytest.raises(tfprune.UsageError) as error:
        plan(model, filters=0.5, exclude="relu")
    assert str(error.value) == (
        "exclude: 'relu' names no layer that makes channels: name the one before it that does"
    )


def graph(draw: Callable[..., Any]) -> keras.Model:
    """A small random functional model out of all that channels can pass through."""
    size = 4
    inputs = [keras.Input((size, size, 2)) for _ in range(draw(st.integers(1, 2)))]
    maps = list(inputs)
    channels = st.integers(2, 5)
    activation = st.sampled_from([None, "relu", "tanh", "elu"])

    def conv(filters: int) -> layers.Layer:
        width = draw(st.sampled_from([1, 3]))
        return layers.Conv2D(filters, width, padding="same", activation=draw(activation))

    def pick() -> keras.KerasTensor:
        return draw(st.sampled_from(maps))

    def nested(x: keras.KerasTensor) -> keras.Model:
        start = keras.Input(x.shape[1:])
        inner = layers.Add()([start, conv(x.shape[-1])(layers.ReLU()(start))])
        return keras.Model(start, inner)

    def convolution() -> keras.KerasTensor:
        return conv(draw(channels))(pick())

    def normalisation() -> keras.KerasTensor:
        return layers.BatchNormalization(scale=draw(st.booleans()), center=draw(st.booleans()))(
            pick()
        )

    def residual() -> keras.KerasTensor:
        x = pick()
        return layers.Add()([x, conv(x.shape[-1])(x)])

    def concatenation() -> keras.KerasTensor:
        return layers.Concatenate()([pick(), pick()])

    def depthwise() -> keras.KerasTensor:
        copies = draw(st.integers(1, 2))
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=copies)(pick())

    def gate() -> keras.KerasTensor:
        x = pick()
        squeezed = layers.Dense(3, "relu")(layers.GlobalAveragePooling2D()(x))
        return layers.Multiply()([x, layers.Dense(x.shape[-1], "sigmoid")(squeezed)])

    def shared() -> keras.KerasTensor:
        x, layer = pick(), conv(draw(channels))
        y = conv(x.shape[-1])(x)
        return layers.Concatenate()([layer(x), layer(y)])

    def model_in_model() -> keras.KerasTensor:
        x = pick()
        inner = nested(x)
        return inner(inner(x)) if draw(st.booleans()) else inner(x)

    kinds = [convolution, normalisation, residual, concatenation, depthwise, gate, shared]
    for _ in range(draw(st.integers(2, 5))):
        maps.append(draw(st.sampled_from([*kinds, model_in_model]))())
    # Every input must reach an output for the model to exist.
    last = layers.Concatenate()([maps[-1], *inputs])
    outputs = [layers.Dense(2)(layers.Flatten()(conv(3)(last)))]
    if draw(st.booleans()):
        outputs.append(layers.GlobalMaxPooling2D()(pick()))
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)


# Building a model inside a strategy would use the global random state, which hypothesis forbids.
# Nor does it shrink: each try builds ten models, and these are small to begin with.
@pytest.mark.slow
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data(), st.integers(0, 2**16))
def test_random_graphs(data: st.DataObject, seed: int) -> None:
    # A BatchNorm without gamma keeps a dead filter's shift alive, so here dead is only free.
    run_slim_test(graph(data.draw), removable=None, dies=None, save=False, seed=seed)


def test_dead_takes_constants_branches_and_channels_at_once() -> None:
    """A channel that emits a constant, a block that adds zero, and what fed them."""
    x = keras.Input((6, 6, 3))
    y = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(layers.Conv2D(6, 1)(x)))
    z = layers.Conv2D(6, 3, padding="same", name="inner")(y)
    z = layers.BatchNormalization(name="norm")(z)
    y = layers.Add(name="sum")([y, z])
    model = randomised(keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y))))
    norm, stem = model.get_layer("norm"), model.get_layer("stem_norm")
    norm.gamma.assign(norm.gamma * 0)
    norm.beta.assign(norm.beta * 0)
    scale = np.asarray(stem.gamma).copy()
    scale[2] = 0.0
    stem.gamma.assign(scale)
    small = tfprune.slim(model, dead=True)
    left = named_layers(small)
    assert "inner" not in left
    assert left["stem_norm"].gamma.shape == (5,)
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
    assert_close(outputs(small, [images]), outputs(model, [images]), 1e-5)


@pytest.mark.slow
def test_a_measured_target_is_met_by_the_file(tmp_path: Path) -> None:
    model = zoo.build("vgg", (8, 8, 3), 4, seed=0, width=8, blocks=[1, 1])
    (dense,) = tfprune.export(model, tmp_path / "dense", formats=["tflite"])
    limit = dense.path.stat().st_size * 2 // 3
    small = tfprune.slim(model, bytes=limit)
    (slim,) = tfprune.export(small, tmp_path / "slim", formats=["tflite"])
    assert 0.8 * limit < slim.path.stat().st_size <= limit
