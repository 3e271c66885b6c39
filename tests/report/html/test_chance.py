"""An accuracy from few images is told as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tfprune.report.html.chance import interval, standard_error


def test_standard_error_is_the_binomial_one():
    assert standard_error(0.9, 100) == pytest.approx(0.03)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_the_interval_is_wilsons(counts):
    images, right = counts
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert interval(right / images, images) == pytest.approx(tuple(expected), abs=1e-6)


def test_all_right_is_no_proof_of_perfection():
    low, high = interval(1.0, 100)
    assert (round(low, 3), high) == (0.963, 1.0)
