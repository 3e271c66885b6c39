from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.filters.rules.registry import _RULES

from ..harness import run_slim_test
from ..models import chain, conv, frozen_between


@keras.saving.register_keras_serializable(package="tests")
class Halve(layers.Layer):
    def call(self, x: object) -> object:
        return x / 2


@keras.saving.register_keras_serializable(package="tests")
class OwnConv(layers.Conv2D):
    def call(self, x: object) -> object:
        return super().call(x) / 2


def doubled(x: object) -> object:
    return x * 2


FROZEN: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "custom layer": (
        lambda: frozen_between(Halve(name="mine")),
        "mine is a Halve, which has no rule (see tfprune.channel_rule)",
    ),
    "lambda": (
        lambda: frozen_between(layers.Lambda(lambda x: x + 1, name="mine")),
        "mine is a Lambda, whose function nobody can look into",
    ),
    "subclass that computes something else": (
        lambda: frozen_between(OwnConv(3, 1, name="mine")),
        "mine is a OwnConv, which has no rule (see tfprune.channel_rule)",
    ),
    "custom activation": (
        lambda: frozen_between(layers.Activation(doubled)),
        "the activation doubled is not known to act on each channel alone "
        "(see tfprune.register_pointwise)",
    ),
    "lambda as activation": (
        lambda: chain(conv(name="free"), conv(name="held", activation=lambda x: x * 2)),
        "the activation <lambda> is not known to act on each channel alone "
        "(see tfprune.register_pointwise)",
    ),
}


@pytest.mark.filterwarnings("ignore:.*being serialized includes a `lambda`:UserWarning")
@pytest.mark.reliability("layers that stay, each with its reason", "right")
@pytest.mark.parametrize("case", FROZEN)
def test_frozen(case: str) -> None:
    build, reason = FROZEN[case]
    model = build()
    groups = run_slim_test(model, save=False)
    assert groups.frozen["held"] == reason
    assert "free" not in groups.frozen
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.remove_filters(model, {"held": [0]})
    assert str(error.value) == f"filter 0 of layer 'held' cannot go: {reason}"


@keras.saving.register_keras_serializable(package="tests")
class Scale(layers.Layer):
    def build(self, shape: tuple[int, ...]) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x: object) -> object:
        return x * self.factor


def test_a_rule_of_ones_own() -> None:
    """A new layer takes its rule, here, and nothing else."""

    @tfprune.channel_rule(Scale)
    def scale(trace, layer, x):
        x = trace.along(x, -1)
        trace.weight(layer.factor, 0, x, "scale")
        return trace.passed(x)

    try:
        model = chain(conv(name="a"), Scale(name="mine"), conv(name="b"))
        groups = run_slim_test(model)
        assert set(groups.frozen) == {model.layers[-1].name}
        slim = tfprune.slim(model, filters=0.5)
    finally:
        del _RULES[Scale]
    assert slim.get_layer("a").filters == slim.get_layer("mine").factor.shape[0] == 2
    factors = np.asarray(model.get_layer("mine").factor).tolist()
    assert set(np.asarray(slim.get_layer("mine").factor).tolist()) < set(factors)
