"""Two models that answer alike agree; noise, a constant and the opposite do not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.measure.test_evaluation import softmax
from tfprune.errors import UsageError
from tfprune.measure import agreement


def test_agreement_counts_classes_and_finds_the_differences() -> None:
    expected = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    outputs = np.array([[0.0, 1.0], [0.4, 0.5], [0.0, 1.0], [1.0, 0.0]])
    found = agreement(outputs, expected)
    assert (found.share, found.compared_as, found.commonest) == (0.75, "classes", 0.5)
    assert found.largest_difference == pytest.approx(0.6)
    assert found.mean_difference == pytest.approx(1.1 / 8)
    assert found.off == pytest.approx(0.6)
    with pytest.raises(UsageError, match="cannot be compared"):
        agreement(outputs, expected[:2])


SHAPES = [(60, 1), (60, 4), (60,), (8, 4, 4, 1), (8, 4, 4, 3), (20, 5, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["numbers", "sigmoid", "softmax"])
def test_agreement_can_disagree_whatever_the_outputs_are(shape: tuple[int, ...], kind: str) -> None:
    """The same is 1; noise, a constant and the opposite are far from it."""
    rng = np.random.default_rng(0)
    expected = rng.normal(size=shape) * 3
    if kind == "sigmoid":
        expected = 1 / (1 + np.exp(-expected))
    elif kind == "softmax" and shape[-1] > 1:
        expected = softmax(expected.reshape(-1, shape[-1])).reshape(shape)
    sigmoid = kind == "sigmoid"
    assert agreement(expected, expected, sigmoid=sigmoid).share == 1
    noise = expected + rng.normal(size=shape) * 1e-4
    assert agreement(noise, expected, sigmoid=sigmoid).share > 0.98
    for wrong in (
        rng.permutation(expected.ravel()).reshape(shape),
        np.full(shape, expected.mean()),
        expected.max() - expected,
        expected * np.nan,
    ):
        assert agreement(wrong, expected, sigmoid=sigmoid).share < 0.75


@pytest.mark.parametrize("sigmoid", [True, False])
def test_rare_classes_are_compared_by_value(sigmoid: bool) -> None:
    """A file that never finds one of a hundred agrees in 99: that says nothing."""
    found = np.full((1000, 1), 0.01)
    expected = np.where(np.arange(1000)[:, None] % 100 == 0, 0.99, 0.01)
    if not sigmoid:
        expected, found = (np.concatenate([y, 1 - y], axis=1) for y in (expected, found))
    assert agreement(found, expected, sigmoid=sigmoid).share < 0.1
    assert agreement(expected, expected, sigmoid=sigmoid).compared_as == "values"


def test_columns_with_units_of_their_own_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(100, 2)) * [1000, 1]
    found = np.round(expected / 8) * 8
    assert agreement(found[:, :1], expected[:, :1]).share > 0.99
    both = agreement(found, expected)
    assert (both.compared_as, both.share < 0.5) == ("values", True)
    assert both.correlation == pytest.approx(1, abs=1e-3)
