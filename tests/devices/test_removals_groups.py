"""Ladders and lengths of weights against the models that are rebuilt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.devices.removals import Removals
from tfprune.filters import ChannelGroups, rebuild

from .models import chain, drawn_scores, residual


@pytest.fixture(scope="module")
def groups() -> ChannelGroups:
    return ChannelGroups(residual())


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_lengths_are_those_of_the_slim_model(groups: ChannelGroups, data: st.DataObject) -> None:
    removals = Removals(groups, drawn_scores(groups, 0))
    removed = np.array(
        [data.draw(st.sampled_from(ladder.removed.tolist())) for ladder in removals.ladders]
    )
    weights = groups.model.weights
    axes = [(weight, axis) for weight in weights for axis in range(len(weight.shape))]
    slim = rebuild(removals.plan(removed))
    expected = [length for weight in slim.weights for length in weight.shape]
    assert removals.sizes(axes)(removed[None])[0].tolist() == expected


def test_the_least_important_go_first(groups: ChannelGroups) -> None:
    scores = drawn_scores(groups, 1)
    removals = Removals(groups, scores)
    for index, group in enumerate(groups):
        if not group.removable.any():
            continue
        removed = [0] * len(groups)
        removed[index] = 2
        alive = removals.plan(removed).alive
        assert set(np.flatnonzero(~alive)) == set(group.units[np.argsort(scores[group.units])[:2]])


def test_sizes_are_rounded_and_bounded_and_some_layers_excluded() -> None:
    groups = ChannelGroups(chain())
    removals = Removals(groups, drawn_scores(groups, 0), round_to=8, minimum=4, exclude=["second"])
    sizes = {
        group.layers[0]: group.size - ladder.removed
        for group, ladder in zip(groups, removals.ladders, strict=True)
    }
    assert sizes["first"].tolist() == [12, 8]
    assert sizes["second"].tolist() == [16]
    assert sizes["logits"].tolist() == [3]


def test_a_group_without_importance_loses_nothing() -> None:
    groups = ChannelGroups(chain())
    for ladder in Removals(groups, np.zeros(groups.unit_count)).ladders:
        assert not ladder.losses.any()
