from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.filters import IMPORTANCE, channel_groups, plan
from tfprune.filters.importance import scores

from .harness import randomised


@pytest.fixture
def model() -> keras.Model:
    return randomised(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.Conv2D(5, 3, name="next"),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
    )


def test_importance_equals_its_formula(model: keras.Model) -> None:
    kernel, bias = (np.asarray(each, np.float64) for each in model.get_layer("next").weights)
    flat = kernel.reshape(-1, 5)
    wanted = {
        "l1": np.abs(flat).sum(0) + np.abs(bias),
        "l2": np.sqrt(np.square(flat).sum(0) + bias**2),
        "lasso": np.sqrt((np.square(flat).sum(0) + bias**2) / (36 + 1)),
    }
    groups = channel_groups(model)
    for name, values in wanted.items():
        found = IMPORTANCE[name](groups)[groups.producers["next"]]
        np.testing.assert_allclose(found, values, rtol=1e-6)


def test_coupled_layers_count_together() -> None:
    x = keras.Input((3,))
    y = layers.Add()([layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)])
    model = randomised(keras.Model(x, layers.Dense(2)(y)))
    groups = channel_groups(model)
    parts = [np.asarray(each) for name in "ab" for each in model.get_layer(name).weights]
    wanted = np.sqrt(sum(np.square(part.reshape(-1, 4)).sum(0) for part in parts))
    np.testing.assert_allclose(IMPORTANCE["l2"](groups)[groups.producers["a"]], wanted, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(IMPORTANCE))
def test_scores_compare_between_groups(model: keras.Model, name: str) -> None:
    """A layer's scale does not decide: each group's live scores have mean one."""
    kernel = model.get_layer("next").kernel
    kernel.assign(np.asarray(kernel) * 1000)
    groups = channel_groups(model)
    found = scores(groups, name)
    for group in groups:
        assert found[group.units].mean() == pytest.approx(1)


def test_dead_units_score_zero(model: keras.Model) -> None:
    reader = model.get_layer("next").kernel
    values = np.array(reader)
    values[:, :, 1] = 0
    reader.assign(values)
    groups = channel_groups(model)
    found = scores(groups, "l1")[groups.producers["conv"]]
    assert found[1] == 0
    assert (np.delete(found, 1) > 0).all()


def test_random_is_the_same_for_the_same_model(model: keras.Model) -> None:
    groups = channel_groups(model)
    np.testing.assert_array_equal(scores(groups, "random"), scores(groups, "random"))


def test_a_function_of_the_groups_decides(model: keras.Model) -> None:
    def last_is_best(groups: tfprune.filters.ChannelGroups) -> np.ndarray:
        return np.arange(1.0, groups.unit_count + 1)

    assert plan(model, filters=0.5, importance=last_is_best).removed["conv"] == [0, 1]


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ("l3", "unknown importance 'l3': choose one of l1, l2, lasso, random"),
        (
            lambda groups: np.ones(3),
            "importance gave an array of shape (3,): return one score a unit, (13,)",
        ),
    ],
)
def test_errors(model: keras.Model, importance: object, message: str) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.slim(model, filters=0.5, importance=importance)
    assert str(error.value) == message
