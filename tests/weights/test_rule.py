"""Scores of one's own, and targets of layers."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tfprune.errors import UsageError
from tfprune.training.schedule import constant_sparsity, polynomial_decay
from tfprune.weights import PruneWeights, prune_once
from tfprune.weights.rule import erk_sparsities


def test_a_score_function_chooses_and_zeros_stay(compiled, data, kernels):
    # The largest die.
    model = compiled()
    model.fit(
        *data, verbose=0, callbacks=[PruneWeights(constant_sparsity(0.5), select=lambda v: -v)]
    )
    for kernel in kernels(model).values():
        assert np.count_nonzero(kernel == 0) == kernel.size // 2
    model.optimizer.iterations.assign(0)
    before = kernels(model)
    model.fit(
        *data, verbose=0, callbacks=[PruneWeights(constant_sparsity(0.75), select=lambda v: -v)]
    )
    for name, kernel in kernels(model).items():
        assert not kernel[before[name] == 0].any()
        assert np.count_nonzero(kernel == 0) == 3 * kernel.size // 4


def test_one_cut_takes_a_score_function_and_nan_dies_last(make_model):
    model = make_model()
    pruned = prune_once(model, 0.5, select=lambda v: np.where(v < 0, np.nan, v))
    for layer, old in zip(pruned.layers, model.layers, strict=True):
        kernel, before = np.asarray(layer.kernel), np.asarray(old.kernel)
        positive = np.count_nonzero(before > 0)
        killed = before[kernel == 0]
        assert np.count_nonzero(killed > 0) == min(positive, killed.size)


@pytest.mark.parametrize("score", [lambda v: v.sum(), lambda v: v.astype(str)])
def test_scores_that_are_none_are_told(make_model, score):
    with pytest.raises(UsageError, match="must give a number for each weight"):
        prune_once(make_model(), 0.5, select=score)


def test_a_layer_has_a_target_of_its_own_and_the_schedule_s_way_to_it(compiled, data):
    schedule = polynomial_decay(0.2, 0.8, begin=0, end=12, frequency=6, power=1)
    pruner = PruneWeights(schedule, layers={"la*": 0.4})
    model = compiled()
    pruner.set_model(model)
    with pruner:
        dead = []
        for step in (0, 6, 12):
            pruner.update(step)
            dead.append([np.count_nonzero(~mask) for mask in pruner.masks.values()])
    # Sparsities 0.2, 0.5, 0.8 of 48 weights, and half of them of 24.
    assert dead == [[10, 2], [24, 6], [38, 10]]


def test_a_target_of_0_leaves_a_layer_dense(compiled, data, kernels):
    model = compiled()
    model.fit(
        *data,
        verbose=0,
        callbacks=[
            PruneWeights(constant_sparsity(0.5), pattern="2:4", layers={"last": 0, "*": 0.75})
        ],
    )
    assert [np.count_nonzero(kernel == 0) for kernel in kernels(model).values()] == [36, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layers": {"first": 1.5}}, "the share of 'first' is 1.5"),
        ({"layers": {"first": 0.5}, "scope": "global"}, "only under the scope 'layer'"),
        ({"layers": {"conv*": 0.5}}, "layers: 'conv.' matches no layer"),
        ({"layers": {"first": 0.5}, "schedule": lambda step: (True, 0.5)}, "does not tell"),
    ],
)
def test_a_target_that_cannot_be_is_told(compiled, arguments, said):
    with pytest.raises(UsageError, match=said):
        pruner = PruneWeights(**{"schedule": constant_sparsity(0.5)} | arguments)
        pruner.set_model(compiled())
        pruner.attach()


def test_nothing_is_read_or_written_where_a_mask_cannot_change(compiled):
    pruner = PruneWeights(lambda step: (True, 0.5 if step < 3 else 0.52))
    pruner.set_model(compiled())
    changed = []
    with pruner:
        pruner.update(0)
        change = pruner._attached.change
        pruner._attached.change = lambda index, *rest: (changed.append(index), change(index, *rest))
        assert not any(pruner.update(step) for step in (1, 2))
        # 0.52 of 48 weights is one weight more than a half, and of 24 none.
        assert pruner.update(3)
    assert changed == [0]


SHAPES = [(3, 3, 3, 16), (3, 3, 16, 16), (3, 3, 64, 64), (64, 10)]


@given(sparsity=st.floats(0, 0.999), more=st.floats(0, 0.999))
def test_erk_keeps_the_total_and_rises_with_it(sparsity, more):
    sizes = np.array([math.prod(shape) for shape in SHAPES])
    found = np.array(erk_sparsities(SHAPES, sparsity))
    assert (found >= 0).all() and (found < 1).all()
    assert found @ sizes == pytest.approx(sparsity * sizes.sum(), abs=1e-6)
    higher = np.array(erk_sparsities(SHAPES, max(sparsity, more)))
    assert (higher >= found - 1e-9).all()


def test_erk_densities_are_as_the_sides_over_their_product():
    # By hand, of two layers that are not dense: 3 + 3 + 16 + 16 is 38.
    small, large = erk_sparsities([(3, 3, 16, 16), (3, 3, 64, 64)], 0.95)
    assert (1 - small) / (1 - large) == pytest.approx((38 / 2304) / (134 / 36864))
    # More than dense is dense, and the other makes up for it.
    assert erk_sparsities([(2, 2), (40, 40)], 0.5) == [0.0, pytest.approx(802 / 1600)]


def test_erk_prunes_while_training_and_at_once_and_in_rounds(compiled, data, kernels):
    model = compiled()
    model.fit(*data, verbose=0, callbacks=[PruneWeights(constant_sparsity(0.5), "erk")])
    counts = {name: np.count_nonzero(kernel == 0) for name, kernel in kernels(model).items()}
    shapes = [kernel.shape for kernel in kernels(model).values()]
    shares = erk_sparsities(shapes, 0.5)
    assert list(counts.values()) == [
        round(share * math.prod(shape)) for share, shape in zip(shares, shapes, strict=True)
    ]
    assert len(set(shares)) == 2
    half = prune_once(prune_once(compiled(), 0.3, scope="erk"), 2 / 7, scope="erk")
    found = [np.count_nonzero(kernel == 0) for kernel in kernels(half).values()]
    # Roundings of each round may be a weight apart.
    assert found == pytest.approx(list(counts.values()), abs=1)
    with pytest.raises(UsageError, match="only under the scope 'layer'"):
        prune_once(model, 0.5, scope="erk", layers={"first": 0.5})
