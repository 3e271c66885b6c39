"""Predictions for a plan against the rebuilt model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import Sequential, layers

import tfprune
from tfprune.devices.cost import PredictedBytes, PredictedSum
from tfprune.devices.operators import operator_calls
from tfprune.devices.removals import Removals, search, total_loss
from tfprune.filters import ChannelGroups, rebuild
from tfprune.filters.groups import ModelSize
from tfprune.filters.plan import Limits, plan_cost

from ..filters.harness import randomised
from .models import Times, drawn_scores, residual


@pytest.fixture(scope="module")
def removals() -> Removals:
    groups = ChannelGroups(residual())
    return Removals(groups, drawn_scores(groups, 0))


def _plans(removals: Removals, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(ladder.removed, count) for ladder in removals.ladders], axis=1)


def test_time_is_that_of_the_operators_of_the_slim_model_and_a_rest(removals: Removals) -> None:
    times = Times(4)
    operators = [use.operator for use in operator_calls(removals.groups.model)]
    predicted = PredictedSum(removals, times, times(operators).sum() + 7.0)
    plans = _plans(removals, 5)
    for plan, milliseconds in zip(plans, predicted(plans), strict=True):
        slim = rebuild(removals.plan(plan))
        assert milliseconds == pytest.approx(
            times([use.operator for use in operator_calls(slim)]).sum() + 7.0
        )


def test_all_that_is_asked_in_one_batch_is_timed_once(removals: Removals) -> None:
    batches = []
    times = Times(4)
    predicted = PredictedSum(
        removals, lambda operators: (batches.append(operators), times(operators))[1], 1.0
    )
    batches.clear()
    predicted(np.repeat(_plans(removals, 2), 10, axis=0))
    (operators,) = batches
    assert len(operators) <= 2 * len(operator_calls(removals.groups.model))


def test_kernels_that_are_not_timed_share_the_rest() -> None:
    model = randomised(
        Sequential(
            [
                layers.Input((6, 6, 2)),
                layers.Conv2DTranspose(8, 3, name="up"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(2),
            ]
        )
    )
    groups = ChannelGroups(model)
    removals = Removals(groups, drawn_scores(groups, 0))
    predicted = PredictedSum(removals, lambda operators: np.zeros(len(operators)), 8.0)
    plan = [2 if "up" in group.layers else 0 for group in groups]
    assert predicted(np.array([plan]))[0] == pytest.approx(6.0)


def test_bytes_follow_the_parameters(removals: Removals) -> None:
    model = removals.groups.model
    predicted = PredictedBytes(removals, 4.0, 4.0 * model.count_params() + 100)
    plans = _plans(removals, 5)
    for plan, size in zip(plans, predicted(plans), strict=True):
        assert size == 4 * rebuild(removals.plan(plan)).count_params() + 100


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.2, 0.9), st.sampled_from([1, 3, 4, 8, 16]))
def test_the_loss_is_at_most_that_of_a_macs_plan_of_the_same_time(
    removals: Removals, seed: int, share: float, tile: int
) -> None:
    groups = removals.groups
    scores = drawn_scores(groups, seed)
    removals = Removals(groups, scores)
    predicted = PredictedSum(removals, Times(tile), 0.0)
    alive = plan_cost(Limits(groups), scores, ModelSize(groups).macs, share, "macs").alive
    by_macs = np.array([group.size - int(alive[group.units].sum()) for group in groups])
    limit = float(predicted(by_macs[None])[0])
    removed = search(removals.ladders, predicted, limit)
    assert predicted(removed[None])[0] <= limit
    assert total_loss(removals.ladders, removed) <= total_loss(removals.ladders, by_macs) + 1e-9


def test_on_stairs_more_time_falls_for_the_same_loss(removals: Removals) -> None:
    """A plan for a smooth cost ends between the steps."""
    groups = removals.groups
    scores = drawn_scores(groups, 0)
    removals = Removals(groups, scores)
    predicted = PredictedSum(removals, Times(4), 0.0)
    alive = plan_cost(Limits(groups), scores, ModelSize(groups).macs, 0.7, "macs").alive
    by_macs = np.array([group.size - int(alive[group.units].sum()) for group in groups])
    least = by_macs
    for share in np.linspace(1, 0.3, 36):
        limit = float(share * predicted(by_macs[None])[0])
        removed = search(removals.ladders, predicted, limit)
        if total_loss(removals.ladders, removed) > total_loss(removals.ladders, by_macs):
            break
        least = removed
    assert predicted(least[None])[0] < 0.95 * predicted(by_macs[None])[0]
    assert tfprune.macs(rebuild(removals.plan(least))) > 0
