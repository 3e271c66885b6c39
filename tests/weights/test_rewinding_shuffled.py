"""What is scattered keeps its entries; masks keep their counts, and nest where others do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tfprune.weights import prunable, prune_once, shuffle_weights
from tfprune.weights.rewinding import shuffle_arrays

masks = arrays(bool, array_shapes(max_dims=4, max_side=5))


@given(masks, st.integers(0, 1000), st.data())
def test_masks_keep_their_counts_and_nest(outer, seed, data):
    inner = outer & data.draw(arrays(bool, outer.shape))
    big, small = (shuffle_arrays([mask], seed)[0] for mask in (outer, inner))
    assert big.shape == outer.shape
    assert (big.sum(), small.sum()) == (outer.sum(), inner.sum())
    assert not np.any(small & ~big)


def test_tensors_of_one_shape_are_shuffled_each_its_own_way():
    one, other = shuffle_arrays([np.arange(50), np.arange(50)], 0)
    assert (one != other).any()


def test_a_model_keeps_the_weights_of_each_tensor_at_other_places(make_model):
    model = prune_once(make_model(), 0.5)
    before = model.get_weights()
    moved = shuffle_weights(model, 1)
    for (_, old), (_, new) in zip(prunable(model), prunable(moved), strict=True):
        one, other = np.asarray(old), np.asarray(new)
        np.testing.assert_array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
        assert ((one == 0) != (other == 0)).any()
    for old, same in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, same)
