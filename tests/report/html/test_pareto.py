"""The front is what nothing beats, and nothing else."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfprune.report.html.pareto import pareto_front

# Few distinct values, so that ties are common.
number = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf, math.nan]) | st.floats()
points = st.lists(st.tuples(number, number), max_size=30)


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(points)
def test_no_member_is_beaten_and_every_other_point_is(pairs):
    front = pareto_front([cost for cost, _ in pairs], [value for _, value in pairs])
    for point, member in zip(pairs, front, strict=True):
        if any(math.isnan(each) for each in point):
            assert not member
        else:
            assert member == (not any(_beats(other, point) for other in pairs))


@given(points.filter(lambda pairs: any(not any(map(math.isnan, pair)) for pair in pairs)))
def test_some_point_is_always_on_the_front(pairs):
    assert pareto_front([cost for cost, _ in pairs], [value for _, value in pairs]).any()


def test_equal_points_are_members_together():
    assert pareto_front([1, 1, 2], [0.5, 0.5, 0.5]).tolist() == [True, True, False]


def test_nothing_has_an_empty_front():
    front = pareto_front([], [])
    assert front.dtype == np.bool_
    assert front.shape == (0,)
