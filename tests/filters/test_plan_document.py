"""A plan written down and read back is the same plan, and no other model takes it."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune.filters import RemovalPlan, channel_groups, plan_document, read_plan, rebuild
from tfprune.model.cloning import copy
from tfprune.slimming import plan

from .harness import asked, random_alive, randomised


def build(width: int = 6, name: str = "net") -> keras.Model:
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(width, 3, padding="same", name="a")(x)
    y = layers.Add()([y, layers.Conv2D(width, 3, padding="same", name="b")(y)])
    y = layers.LayerNormalization(name="norm")(layers.Conv2D(5, 1, name="c")(y))
    end = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(y))
    return randomised(keras.Model(x, end, name=name))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build()


@pytest.fixture
def document(model: keras.Model) -> dict[str, Any]:
    return plan_document(plan(model, filters=0.5)).model_dump()


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**16))
def test_a_plan_read_back_removes_the_same(model: keras.Model, seed: int) -> None:
    groups = channel_groups(model)
    written = RemovalPlan(groups, random_alive(groups, np.random.default_rng(seed)))
    text = plan_document(written).model_dump_json()
    # As another process finds it: a model from a file, with units numbered anew.
    read = read_plan(channel_groups(copy(model)), json.loads(text))
    np.testing.assert_array_equal(read.alive, written.alive)
    assert read.removed == written.removed
    assert plan_document(read) == plan_document(written)


def test_its_figures_are_those_of_the_models(model: keras.Model) -> None:
    found = plan(model, macs=0.5)
    document, slim = plan_document(found), rebuild(found)
    assert document.macs == [tfprune.macs(model), tfprune.macs(slim)]
    assert document.parameters == [model.count_params(), slim.count_params()]
    assert document.kept == {
        "a": slim.get_layer("a").filters,
        "b": slim.get_layer("b").filters,
        "c": slim.get_layer("c").filters,
        "logits": 3,
    }
    assert document.frozen == {"logits": "it is an output of the model"}
    assert document.inexact == {"norm": "norm normalises over all channels"}


def test_a_model_of_open_sizes_has_a_document_without_macs() -> None:
    x = keras.Input((None, None, 2))
    model = keras.Model(x, layers.Conv2D(2, 1)(layers.Conv2D(8, 1, name="a")(x)))
    found = plan(model, params=0.6)
    document = plan_document(found)
    assert document.macs is None
    assert read_plan(found.groups, document).removed == found.removed


def test_what_is_coupled_need_not_be_named(model: keras.Model, document: dict[str, Any]) -> None:
    """People may write in `removed` what goes of one of the coupled layers."""
    groups = channel_groups(model)
    alive = random_alive(groups, np.random.default_rng(1))
    read = read_plan(groups, document | {"removed": asked(groups, alive)})
    np.testing.assert_array_equal(read.alive, alive)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"removed": {"a": [0, -1]}}, "p.json is not a removal plan: removed.a#2 = -1: "),
        ({"removed": {"a": [True]}}, "p.json is not a removal plan: removed.a#1 = True: "),
        ({"removed": [1]}, "p.json is not a removal plan: removed = [1] is not a table: "),
        ({"macs": [1]}, "p.json is not a removal plan: macs = [1]: "),
        (
            {"remove": {}},
            "p.json is not a removal plan: remove is unknown: did you mean 'removed'?",
        ),
        (
            {"removed": {"a": [6]}},
            "p.json: layer 'a' has filters 0..5: 6 is out of range",
        ),
        (
            {"removed": {"x": [0]}},
            "p.json: model 'net' has no layer 'x': see `tfprune inspect`",
        ),
        (
            {"removed": {"logits": [0]}},
            "p.json: filter 0 of layer 'logits' cannot go: it is an output of the model",
        ),
        (
            {"removed": {"c": [0, 1, 2, 3, 4]}},
            "p.json: nothing would be left of layer 'c': keep at least one filter",
        ),
        (
            {"model": "other", "channels": {"a": 6, "b": 6, "c": 8, "logits": 3}},
            "p.json was made for a model 'other' with 8 filters in layer 'c', and 'net' has 5: "
            "give the model it was made for",
        ),
        (
            {"channels": {"a": 6, "b": 6, "c": 5, "d": 4, "logits": 3}},
            "p.json was made for a model 'net' with 4 filters in layer 'd', and 'net' has 0: "
            "give the model it was made for",
        ),
        (
            {"channels": {"a": 6, "b": 6, "c": 5}},
            "p.json was made for a model 'net' with 0 filters in layer 'logits', and 'net' has 3: "
            "give the model it was made for",
        ),
    ],
)
def test_damaged_and_foreign_plans_are_refused(
    model: keras.Model, document: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        read_plan(channel_groups(model), document | change, "p.json")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("document", [None, 3, "x", [], {}, {"removed": {}}, {"model": 3}])
def test_what_is_no_plan_at_all(model: keras.Model, document: Any) -> None:
    with pytest.raises(tfprune.UsageError, match=r"^the plan is not a removal plan: ") as error:
        read_plan(channel_groups(model), document)
    assert "\n" not in str(error.value)


def test_a_plan_of_another_width_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(tfprune.UsageError, match="with 6 filters in layer 'a', and 'net' has 7"):
        read_plan(channel_groups(build(width=7)), document)
