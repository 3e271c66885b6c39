from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tests.versions import newer_keras
from tfprune.filters import channel_groups, plan_cost
from tfprune.filters.groups import ModelSize
from tfprune.filters.plan import Limits
from tfprune.model.cloning import copy
from tfprune.slimming import plan

from .harness import randomised


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return randomised(
        keras.Sequential(
            [
                keras.Input((8, 8, 3), name="picture"),
                layers.Conv2D(12, 3, name="first"),
                layers.ReLU(name="relu"),
                layers.Conv2D(20, 3, name="second"),
                layers.Flatten(),
                layers.Dense(3, name="last"),
            ]
        )
    )


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"last": [0]}, "filter 0 of layer 'last' cannot go: it is an output of the model"),
        ({"frist": [0]}, "model 'small' has no layer 'frist': did you mean 'first'?"),
        ({"xyz": [0]}, "model 'small' has no layer 'xyz': see `tfprune inspect`"),
        (
            {"relu": [0]},
            "layer 'relu' makes no channels of its own: name the layer before it that does",
        ),
        (
            {"own": [0]},
            "layer 'own' has no filters that can go: own is a Lambda, whose function is not known",
        ),
        (
            {"second": [0]},
            "filter 0 of layer 'second' cannot go: own is a Lambda, whose function is not known",
        ),
        ({"first": [12]}, "layer 'first' has filters 0..11: 12 is out of range"),
        ({"first": [-1]}, "layer 'first' has filters 0..11: -1 is out of range"),
        (
            {"first": range(12)},
            "nothing would be left of layer 'first': keep at least one filter",
        ),
    ],
)
def test_errors_of_remove_filters(filters: dict, message: str) -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(12, 3, name="first"),
            layers.ReLU(name="relu"),
            layers.Conv2D(20, 3, name="second"),
            layers.Lambda(lambda x: x, name="own"),
            layers.Flatten(),
            layers.Dense(3, name="last"),
        ],
        name="small",
    )
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.remove_filters(model, filters)
    assert str(error.value) == message


def test_nothing_may_be_left_of_a_coupled_layer() -> None:
    """Three of `c`'s channels go with `a`, two with `b`."""
    x = keras.Input((3,))
    both = layers.Concatenate()([layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)])
    y = layers.Add()([both, layers.Dense(5, name="c")(x)])
    model = keras.Model(x, layers.Dense(2)(y))
    with pytest.raises(tfprune.UsageError, match="nothing would be left of layer 'b'"):
        tfprune.remove_filters(model, {"c": [0, 3, 4]})
    assert tfprune.remove_filters(model, {"c": [0, 3]}).get_layer("c").units == 3


def test_a_plan_names_what_goes(model: keras.Model) -> None:
    found = plan(model, filters=0.5)
    norms = np.linalg.norm(
        np.concatenate(
            [np.reshape(each, (-1, 12)) for each in model.get_layer("first").get_weights()]
        ),
        axis=0,
    )
    assert found.removed["first"] == sorted(np.argsort(norms)[:6].tolist())
    assert set(found.removed) == {"first", "second"}
    assert found.inexact == {}


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("target", ["macs", "params"])
def test_a_cost_fits_and_not_one_unit_more_goes(
    model: keras.Model, target: str, share: float
) -> None:
    found = plan(model, **{target: share})
    groups = found.groups
    cost = getattr(ModelSize(groups), target)
    whole = cost(np.ones(groups.unit_count, bool))
    assert cost(found.alive) <= share * whole
    if share == 1.0:
        assert found.alive.all()
    else:
        # Bringing back the best of what went breaks the limit.
        from tfprune.filters.importance import scores

        gone = np.flatnonzero(~found.alive)
        back = found.alive.copy()
        back[gone[np.argmax(scores(groups, "l2")[gone])]] = True
        assert cost(back) > share * whole


@pytest.mark.parametrize("options", [{"filters": 0.3}, {"macs": 0.5}, {"params": 0.5}])
def test_sizes_become_multiples(model: keras.Model, options: dict[str, float]) -> None:
    found = plan(model, **options, round_to=8)
    for name, full in (("first", 12), ("second", 20)):
        left = full - len(found.removed.get(name, []))
        assert left == full or left % 8 == 0
    assert found.removed


@pytest.mark.parametrize(
    "options",
    [{"filters": 1.0}, {"filters": 1.0, "scope": "global"}, {"macs": 1.0}, {"params": 1.0}],
)
@pytest.mark.parametrize("rounds", [1, 2])
def test_keeping_all_removes_nothing(
    model: keras.Model, options: dict[str, float], rounds: int
) -> None:
    found = plan(model, **options, round_to=8, minimum=3, rounds=rounds)
    assert found.alive.all()
    assert found.removed == {}


def left(found: tfprune.filters.RemovalPlan) -> dict[str, int]:
    return {path: int(found.alive[units].sum()) for path, units in found.groups.producers.items()}


@pytest.mark.filterwarnings("ignore:slim. filters=:UserWarning")
@settings(max_examples=25, deadline=None)
@given(
    share=st.floats(0.05, 1),
    scope=st.sampled_from(["layer", "global"]),
    minimum=st.integers(1, 30),
    round_to=st.integers(1, 6),
    excluded=st.sampled_from([(), "first", ("second",), ["*t"], ["f*", "second"]]),
)
def test_limits_are_kept_whatever_is_asked(
    model: keras.Model,
    share: float,
    scope: str,
    minimum: int,
    round_to: int,
    excluded: str | Sequence[str],
) -> None:
    """Excluded layers keep all; others at least the minimum, in multiples where they shrink."""
    try:
        found = plan(
            model,
            filters=share,
            scope=scope,
            minimum=minimum,
            round_to=round_to,
            exclude=excluded,
            importance="l1",
        )
    except tfprune.UsageError as error:
        # Only filters that compete have a share that may be out of reach.
        reached = scope == "global" and "cannot be reached" in str(error)
        assert reached or "where no channel may go" in str(error)
        return
    for path, full in (("first", 12), ("second", 20)):
        kept = left(found)[path]
        if any(fnmatch(path, each) for each in ([excluded] if excluded == "first" else excluded)):
            assert kept == full
        assert kept >= min(minimum, full)
        assert kept == full or kept % round_to == 0


def test_a_coupled_layer_is_left_alone_with_the_excluded_one() -> None:
    x = keras.Input((3,))
    both = layers.Add()([layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)])
    model = keras.Model(x, layers.Dense(2)(layers.Dense(4, name="c")(both)))
    assert set(plan(model, filters=0.5, exclude="b").removed) == {"c"}


def test_the_layers_of_a_nested_model_are_excluded_by_its_name() -> None:
    inner = keras.Sequential([keras.Input((3,)), *map(layers.Dense, (4, 4))], name="inner")
    model = keras.Sequential([keras.Input((3,)), inner, layers.Dense(4, name="b"), layers.Dense(2)])
    assert set(plan(model, filters=0.5, exclude="inner").removed) == {"b"}


def test_excluded_layers_keep_their_dead() -> None:
    zeros = keras.initializers.Zeros()
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, kernel_initializer=zeros, name="a"),
            layers.Dense(4, kernel_initializer=zeros, name="b"),
            layers.Dense(2),
        ]
    )
    assert set(plan(model, dead=True).removed) == {"a", "b"}
    assert set(plan(model, dead=True, exclude="a").removed) == {"b"}
    assert left(plan(model, dead=True, minimum=3)) == {"a": 3, "b": 3, model.layers[-1].name: 2}


def test_filters_compete_across_layers_under_a_global_scope(model: keras.Model) -> None:
    """All of the worst go, wherever they are, and one a layer stays."""

    groups = channel_groups(model)
    units = np.concatenate([groups.producers["first"], groups.producers["second"]])
    ranked = np.ones(groups.unit_count)
    ranked[groups.producers["first"]] = 0.01
    found = plan_cost(
        Limits(groups), ranked, lambda alive: int(alive[units].sum()), 26 / 32, "filters"
    )
    assert left(found) == {"first": 6, "second": 20, "last": 3}
    assert plan(model, filters=0.5, scope="global").alive[units].sum() == 16
    assert left(plan(model, filters=0.5))["first"] == 6


def test_any_cost_that_never_grows_can_be_a_target(model: keras.Model) -> None:
    """Such as steps of a tile, which are no whole numbers."""
    groups = channel_groups(model)
    units = groups.producers["second"]

    def cost(alive: np.ndarray) -> float:
        return 0.25 + np.ceil(alive[units].sum() / 4) * 0.5

    found = plan_cost(
        Limits(groups), np.arange(groups.unit_count, dtype=float), cost, 0.5, "latency"
    )
    assert cost(found.alive) <= 0.5 * cost(np.ones(groups.unit_count, bool))
    assert left(found)["second"] == 8


def test_frozen_units_stay_whatever_they_score() -> None:
    x = keras.Input((4,))
    a, b = layers.Dense(2, name="a")(x), layers.Dense(6, name="b")(x)
    y = layers.Add()([layers.Concatenate()([a, b]), layers.Dense(8, name="c")(x)])
    model = randomised(keras.Model(x, [layers.Dense(2)(y), a]))
    for name in "ac":
        kernel = model.get_layer(name).kernel
        kernel.assign(np.concatenate([np.full((4, 2), 1e-9), np.array(kernel)[:, 2:]], axis=1))
    for options in ({"filters": 0.2}, {"macs": 0.5}, {"dead": True}):
        assert not {0, 1} & set(plan(model, **options).removed.get("c", []))
    assert len(plan(model, filters=0.5).removed["c"]) == 3


def test_dead_removal_leaves_one_of_a_dead_layer(model: keras.Model) -> None:
    twin = copy(model)
    for variable in twin.get_layer("second").weights:
        variable.assign(np.zeros(variable.shape))
    found = plan(twin, dead=True)
    assert len(found.removed["second"]) == 19
    # What the dead layer reads is dead too: its kernel is zero.
    assert len(found.removed["first"]) == 11


def test_parameters_of_an_open_size_can_be_counted() -> None:
    x = keras.Input((None, None, 2))
    model = keras.Model(x, layers.Conv2D(2, 1)(layers.Conv2D(8, 1, name="a")(x)))
    assert len(plan(model, params=0.6).removed["a"]) == 4
    with pytest.raises(
        tfprune.UsageError, match=r"give input_shape .--input-shape., or a fixed shape"
    ):
        plan(model, macs=0.6)


def test_group_order_is_stable(model: keras.Model) -> None:
    assert [group.layers for group in channel_groups(model)] == [("first",), ("second",), ("last",)]


def held() -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(layers.Lambda(lambda x: x)(layers.Dense(3)(x))))


@pytest.mark.reliability("models of unusual classes and shapes", "refused")
@pytest.mark.parametrize(
    "target",
    [
        "filters",
        pytest.param(
            "macs",
            marks=newer_keras("what a Lambda is made of is not counted"),
        ),
        "params",
    ],
)
def test_a_model_of_which_nothing_can_go_is_refused(target: str) -> None:
    with pytest.raises(tfprune.UsageError, match=r"removes nothing|cannot be reached"):
        tfprune.slim(held(), **{target: 0.5})


def test_a_share_that_removes_nothing_is_said(model: keras.Model) -> None:
    with pytest.warns(UserWarning, match=r"^slim: filters=0\.999 removes nothing of model"):
        tfprune.slim(model, filters=0.999)
    tfprune.slim(model, filters=1.0)
