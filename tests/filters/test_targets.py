"""A target in rounds: one plan over the original's groups, whatever was removed on the way."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.filters import (
    ChannelGroups,
    channel_groups,
    plan_in_rounds,
    plan_share,
    rebuild,
    scores,
)
from tfprune.filters.groups import ModelSize
from tfprune.filters.plan import Limits
from tfprune.slimming import plan

from .harness import randomised

TARGETS: list[dict[str, Any]] = [
    {"filters": 0.4},
    {"filters": 0.4, "scope": "global"},
    {"macs": 0.4},
    {"params": 0.4, "round_to": 2, "minimum": 3},
]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    branch = layers.Conv2D(12, 3, padding="same", activation="relu", name="inner")(y)
    y = layers.Add()([y, layers.Conv2D(8, 3, padding="same", name="outer")(branch)])
    y = layers.BatchNormalization()(y)
    return randomised(keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y))))


@pytest.mark.parametrize("target", TARGETS)
def test_rounds_meet_the_target_and_its_limits(model: keras.Model, target: dict) -> None:
    found = plan(model, **target, rounds=3)
    assert found.groups.model is model
    cost, whole = ModelSize(found.groups), np.ones(found.groups.unit_count, bool)
    for name in set(target) & {"macs", "params"}:
        assert getattr(cost, name)(found.alive) <= 0.4 * getattr(cost, name)(whole)
    for group in found.groups:
        kept = int(found.alive[group.units].sum())
        assert kept == group.size or kept % target.get("round_to", 1) == 0
        assert kept >= min(group.size, target.get("minimum", 1))
        if "filters" in target and "scope" not in target and group.removable.all():
            assert kept == round(0.4 * group.size)
    assert rebuild(found).count_params() == cost.params(found.alive)


def by_bias(groups: ChannelGroups) -> np.ndarray:
    """What a filter scores by itself, whichever others are there."""
    found = np.ones(groups.unit_count)
    for path in ("stem", "inner"):
        found[groups.producers[path]] = np.exp(groups.model.get_layer(path).bias)
    return found


@pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
def test_one_round_is_enough_where_the_order_stays(model: keras.Model, share: float) -> None:
    once = plan(model, filters=share, importance=by_bias)
    for rounds in (1, 2, 5):
        many = plan(model, filters=share, importance=by_bias, rounds=rounds)
        np.testing.assert_array_equal(many.alive, once.alive)


def test_one_round_is_one_shot(model: keras.Model) -> None:
    groups = channel_groups(model)
    found = plan_in_rounds(groups, partial(plan_share, Limits(groups)), 0.4, 1, "l1")
    np.testing.assert_array_equal(
        found.alive, plan_share(Limits(groups), scores(groups, "l1"), 0.4).alive
    )


def test_each_round_ranks_the_model_that_is_left(model: keras.Model) -> None:
    seen = []

    def importance(groups: ChannelGroups) -> np.ndarray:
        seen.append(groups.model.get_layer("inner").filters)
        return np.arange(1.0, groups.unit_count + 1)

    plan(model, filters=0.25, importance=importance, rounds=2)
    assert seen == [12, 6]
    seen.clear()
    plan(model, filters=0.25, importance=importance)
    assert seen == [12]


def test_a_later_round_sees_what_an_earlier_one_did() -> None:
    """`a`'s second channel feeds one channel of `b` alone: once that went, it is dead."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, name="a"),
            layers.Dense(4, name="b"),
            layers.Dense(2, name="c"),
        ]
    )
    randomised(model)
    kernel = np.abs(np.asarray(model.get_layer("b").kernel)) + 1
    kernel[1] = [0.0, 0.0, 0.0, 1e-3]
    kernel[:, 3] *= 1e-3
    model.get_layer("b").set_weights([kernel, np.full(4, 1e-3)])
    first = model.get_layer("a").get_weights()
    first[0][:, 1] = 100
    model.get_layer("a").set_weights(first)
    assert 1 not in plan(model, filters=0.5).removed["a"]
    assert 1 in plan(model, filters=0.5, rounds=2).removed["a"]


def test_out_of_reach_is_said_of_the_share_that_was_asked_for(model: keras.Model) -> None:
    with pytest.raises(tfprune.UsageError, match=r"^macs=0.001 cannot be reached: "):
        plan(model, macs=0.001, rounds=5)


def test_gradients_are_taken_anew_each_round(model: keras.Model) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, 6, 6, 2)), rng.integers(0, 3, 8)
    found = plan(model, macs=0.5, importance="taylor", data=data, rounds=2)
    assert tfprune.macs(rebuild(found)) <= 0.5 * tfprune.macs(model)
