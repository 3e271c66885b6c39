from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfprune.errors import UsageError
from tfprune.model.layer_table import Axes
from tfprune.weights.masks import (
    global_masks,
    layer_masks,
    lowest,
    magnitude_mask,
    scores,
)
from tfprune.weights.patterns import Blocks, Layout, NofM

# Few distinct values, so that ties are the rule; and what a diverged training leaves.
values = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=4, max_side=5),
    elements=st.one_of(
        st.integers(-3, 3).map(float),
        st.floats(-2, 2, width=32),
        st.sampled_from([np.nan, np.inf, -np.inf, -0.0]),
    ),
)
shares = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1))
cuts = pytest.mark.parametrize("cut", [layer_masks, global_masks])
selects = pytest.mark.parametrize("select", ["magnitude", "random"])


@given(values, shares)
def test_a_mask_kills_exactly_the_share_asked_for(value, sparsity):
    mask = magnitude_mask(value, sparsity)
    assert mask.shape == value.shape
    assert mask.dtype == bool
    assert np.count_nonzero(~mask) == round(sparsity * value.size)


@given(values, shares)
def test_no_dead_weight_is_larger_than_a_living_one(value, sparsity):
    mask = magnitude_mask(value, sparsity)
    size = scores(value)
    assert size[~mask].max(initial=-np.inf) <= size[mask].min(initial=np.inf)


@given(values, st.lists(shares, min_size=2, max_size=4))
def test_masks_nest_whatever_the_weights_become(value, sparsities):
    mask = None
    for sparsity in sparsities:
        new = magnitude_mask(value, sparsity, mask)
        assert mask is None or not np.any(new & ~mask)
        # The dead come back large: only the mask tells that they are dead.
        value = np.where(new, -value, np.float32(100))
        mask = new
    assert np.count_nonzero(~mask) == round(max(sparsities) * value.size)


@cuts
@selects
@given(data=st.data())
def test_masks_are_read_back_from_the_zeros(cut, select, data):
    value = data.draw(values.map(lambda v: np.where(v == 0, np.float32(1), v)))
    low, high = sorted(data.draw(st.tuples(shares, shares)))
    first = cut([value, value], low, None, select).masks
    zeroed = [np.where(mask, value, np.float32(0)) for mask in first]
    for sparsity in (low, high):
        from_zeros = cut(zeroed, sparsity, None, select).masks
        from_masks = cut([value, value], sparsity, first, select).masks
        for ours, theirs in zip(from_zeros, from_masks, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_ties_are_settled_by_position():
    mask = magnitude_mask(np.array([1.0, -1.0, 0.5, 1.0, 1.0]), 0.6)
    np.testing.assert_array_equal(mask, [False, False, False, True, True])


def test_nan_and_infinity_die_last():
    mask = magnitude_mask(np.array([np.nan, 3.0, -np.inf, 1.0], np.float32), 0.5)
    np.testing.assert_array_equal(mask, [True, False, True, False])


def test_global_masks_rank_all_tensors_together():
    small, large = np.full((2, 3), 0.1), np.full(4, 5.0)
    masks = global_masks([small, large], 0.6).masks
    assert [np.count_nonzero(~mask) for mask in masks] == [6, 0]
    assert [mask.shape for mask in masks] == [(2, 3), (4,)]


@cuts
def test_random_masks_follow_the_seed_and_not_the_size(cut):
    value = np.linspace(0.1, 1, 40)
    masks = cut([value, value], 0.5, None, "random", 1).masks
    again = cut([value, value * 9], 0.5, None, "random", 1).masks
    other = cut([value, value], 0.5, None, "random", 2).masks
    np.testing.assert_array_equal(masks, again)
    assert not np.array_equal(masks, other)
    # Tensors of one shape are not all given the same pattern.
    assert not np.array_equal(masks[0], masks[1])


@selects
@cuts
def test_exact_zeros_die_first(cut, select):
    value = np.where(np.arange(40) % 3 == 0, 0.0, np.linspace(-1, 1, 40))
    masks = cut([value, value], 0.5, None, select, 5).masks
    assert not any(np.any(mask[value == 0]) for mask in masks)


@cuts
@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_a_sparsity_that_is_no_share_is_refused(cut, sparsity):
    with pytest.raises(UsageError, match="from 0 to 1"):
        cut([np.ones(4)], sparsity)


@pytest.mark.parametrize("cut", [layer_masks, global_masks])
@pytest.mark.parametrize("layout", [None, NofM(2, 4), Blocks(1, 2)])
@example([(1, 1), (5, 1)], [1.0, 0.25], 3, 50).via(
    "a group that was emptied before has none to keep"
)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=3),
    sparsities=st.lists(shares, min_size=1, max_size=3),
    kept=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_so_many_stay_in_each_tensor_and_masks_nest(cut, layout, sizes, sparsities, kept, seed):
    rng = np.random.default_rng(seed)
    tensors = [rng.integers(-2, 3, size).astype(np.float32) for size in sizes]
    layouts = [layout and Layout(layout, Axes((0,), (1,)))] * len(tensors)
    before = None
    for sparsity in sorted(sparsities):
        masks, floored = cut(tensors, sparsity, before, layouts=layouts, min_kept=kept)
        without = cut(tensors, sparsity, before, layouts=layouts).masks
        for i, mask in enumerate(masks):
            old = np.ones(mask.shape, bool) if before is None else before[i]
            had = np.count_nonzero(old)
            assert not np.any(mask & ~old)
            if isinstance(layout, NofM):
                # Two of each four inputs of an output are all that the pattern leaves.
                had = sum(min(2, alive) for alive in _alive_in_groups(old))
            assert np.count_nonzero(mask) >= min(kept, had)
        if not floored:
            for mask, same in zip(masks, without, strict=True):
                np.testing.assert_array_equal(mask, same)
        elif cut is global_masks and layout is None:
            # As exact as without, as long as there are others to die.
            total = sum(mask.size for mask in masks)
            least = sum(min(kept, mask.size) for mask in masks)
            alive = sum(map(np.count_nonzero, masks))
            assert alive == max(least, total - round(sparsity * total))
        before = masks


def _alive_in_groups(mask):
    """How many live of each group of four inputs in a matrix, for all its outputs."""
    starts = range(0, len(mask), 4)
    return np.concatenate([np.count_nonzero(mask[i : i + 4], axis=0) for i in starts])


def test_the_highest_stay():
    value = np.array([3.0, -5.0, 1.0, 4.0], np.float32)
    ((mask,), floored) = layer_masks([value], 1.0, min_kept=2)
    assert mask.tolist() == [False, True, False, True]
    assert floored == [0]


@given(
    size=st.integers(1, 20_000),
    share=st.floats(0, 1),
    alive=st.floats(0, 1),
    distinct=st.sampled_from([2, 50, 10**6]),
    seed=st.integers(0, 99),
)
def test_the_lowest_are_those_of_a_stable_sort(size, share, alive, distinct, seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, distinct, size).astype("float32")
    # In order, where a sample at regular places can mislead.
    score = np.sort(score) if seed % 3 == 0 else score
    among = rng.random(size) < alive if seed % 2 else None
    candidates = np.arange(size) if among is None else np.flatnonzero(among)
    count = int(share * (candidates.size + 2))
    expected = candidates[np.argsort(score[candidates], kind="stable")][:count]
    np.testing.assert_array_equal(np.sort(lowest(score, count, among)), np.sort(expected))


def test_few_candidates_are_looked_at_when_few_die(monkeypatch):
    looked_at = []
    partition = np.partition
    monkeypatch.setattr(
        np, "partition", lambda a, k: (looked_at.append(a.size), partition(a, k))[1]
    )
    score = np.random.default_rng(0).random(100_000, dtype=np.float32)
    lowest(score, 300, score > 0.5)
    assert sum(looked_at) < 5_000
