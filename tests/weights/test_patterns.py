"""N:M and blocks hold, are exact, nest, and are read back from zeros."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import layers

from tfprune.errors import UsageError
from tfprune.model.layer_table import Axes, axes_of
from tfprune.training.schedule import constant_sparsity, polynomial_decay
from tfprune.weights import PruneWeights, prune_once
from tfprune.weights.masks import global_masks, layer_masks
from tfprune.weights.patterns import Blocks, Layout, NofM, parse

ROWS = Axes((0,), (1,))
cuts = pytest.mark.parametrize("cut", [layer_masks, global_masks])
# Few distinct values, so that ties and zeros are the rule.
kernels = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-3, 3)
)
patterns = st.sampled_from([NofM(2, 4), NofM(1, 4), NofM(1, 2), NofM(3, 5)])
blocks = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda sides: Blocks(*sides))


def groups(mask: np.ndarray, m: int) -> list[int]:
    """How many live of each m rows, in each column."""
    return [
        int(np.count_nonzero(mask[start : start + m, column]))
        for start in range(0, mask.shape[0], m)
        for column in range(mask.shape[1])
    ]


@cuts
@given(value=kernels, pattern=patterns, more=st.floats(0, 1))
def test_each_group_keeps_at_most_n_and_the_count_is_exact(cut, value, pattern, more):
    layouts = [Layout(pattern, ROWS)] * 2
    sparsity = pattern.sparsity + more * (1 - pattern.sparsity)
    # Zeros only where the groups want them: others stay dead too, beyond the count.
    value = np.where(value == 0, 0.5, value).astype("float32")
    found = cut([value, value * 2], sparsity, None, layouts=layouts).masks
    assert max(n for mask in found for n in groups(mask, pattern.m)) <= pattern.n
    each = round(sparsity * value.size)
    dead = [np.count_nonzero(~mask) for mask in found]
    assert sum(dead) == (2 * each if cut is layer_masks else round(sparsity * 2 * value.size))


@cuts
@given(value=kernels, pattern=st.one_of(patterns, blocks), path=st.lists(st.floats(0, 1)))
def test_masks_in_a_pattern_nest_and_are_read_back_from_the_zeros(cut, value, pattern, path):
    layouts, mask = [Layout(pattern, ROWS)] * 2, None
    value = np.where(value == 0, 0.5, value).astype("float32")
    for sparsity in sorted(path):
        new = cut([value, value], sparsity, mask, layouts=layouts).masks
        assert mask is None or not any(np.any(a & ~b) for a, b in zip(new, mask, strict=True))
        zeroed = [np.where(each, value, np.float32(0)) for each in new]
        again = cut(zeroed, sparsity, None, layouts=layouts).masks
        for ours, theirs in zip(again, new, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        value, mask = np.where(new[0] & new[1], value[::-1], np.float32(3)), new


@given(kernels, blocks, st.floats(0, 1))
def test_blocks_live_or_die_whole_and_the_count_is_within_half_of_one(value, pattern, sparsity):
    ((mask,), _) = layer_masks([value], sparsity, layouts=[Layout(pattern, ROWS)])
    for top in range(0, value.shape[0], pattern.inputs):
        for left in range(0, value.shape[1], pattern.outputs):
            block = mask[top : top + pattern.inputs, left : left + pattern.outputs]
            assert block.all() or not block.any()
    half = pattern.inputs * pattern.outputs / 2
    # A kernel of many zeros keeps them.
    dead, zero = np.count_nonzero(~mask), np.count_nonzero(value == 0)
    assert abs(dead - round(sparsity * value.size)) <= half or dead <= zero


def test_the_block_with_the_lowest_mean_dies_first():
    # Its largest weight is the largest of all.
    value = np.array([[1.0, 1, 1, 1, 0.1, 0.1, 0.1, 3]], np.float32)
    ((mask,), _) = layer_masks([value], 0.5, layouts=[Layout(Blocks(1, 4), ROWS)])
    np.testing.assert_array_equal(mask, [[True] * 4 + [False] * 4])


def test_zeros_stay_when_a_pattern_is_laid_on_later():
    value = np.array([[0.0], [0], [0], [1], [2], [3], [4], [0]], np.float32)
    ((mask,), _) = layer_masks([value], 0.5, layouts=[Layout(NofM(2, 4), ROWS)])
    # Half are zero already, but the second group has only one of them.
    np.testing.assert_array_equal(mask[:, 0], [0, 0, 0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(3), (8,), Axes((0,), (1,))),
        (layers.Conv2D(3, 2), (8, 8, 4), Axes((2,), (3,))),
        (layers.Conv2DTranspose(3, 2), (8, 8, 4), Axes((3,), (2,))),
        (layers.DepthwiseConv2D(3), (8, 8, 4), Axes((2,), (3,), False)),
        (layers.Embedding(9, 4), (5,), Axes((0,), (1,), False)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (5, 4), Axes((0,), (1, 2))),
        (layers.EinsumDense("abcd,cde->abe", (None, 3)), (5, 2, 4), Axes((0, 1), (2,))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_a_kernel_knows_its_inputs_and_outputs(layer, shape, expected):
    keras.Sequential([keras.Input(shape), layer])
    assert axes_of(layer, layer.weights[0]) == expected


def test_a_training_ends_in_the_pattern_in_every_layer():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.Conv2DTranspose(6, 2, name="up"),
            layers.DepthwiseConv2D(2, name="depthwise"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="head"),
        ]
    )
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6, 6, 3)), rng.normal(size=(16, 5))
    pruner = PruneWeights(polynomial_decay(0, 0.5, 1, 4, frequency=1), pattern="2:4")
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[pruner])
    masks = pruner.masks
    assert max(groups(masks["conv/kernel"][1, 2], 4)) == 2
    # Transposed: the last axis is the input.
    assert max(groups(masks["up/kernel"][1, 0].T, 4)) == 2
    assert max(groups(masks["head/kernel"], 4)) == 2
    for layer in model.layers:
        for weight in layer.weights[:1]:
            value = np.asarray(weight)
            assert np.count_nonzero(value == 0) == round(value.size / 2)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("4:2", "pattern is '4:2'; give"), ((0, 4), r"pattern is \(0, 4\)"), (3, "pattern is 3")],
)
def test_what_is_no_pattern_is_told(pattern, said):
    with pytest.raises(UsageError, match=said):
        PruneWeights(constant_sparsity(0.5), pattern=pattern)


def test_a_target_below_the_pattern_is_told(compiled):
    pruner = PruneWeights(constant_sparsity(0.4), pattern="2:4")
    pruner.set_model(compiled())
    with pytest.raises(UsageError, match=r"needs a sparsity of 0\.5 in layer 'first'.* is 0\.4"):
        pruner.attach()


def test_one_cut_has_patterns_too(make_model):
    pruned = prune_once(make_model(), 0.5, pattern="2:4")
    for layer in pruned.layers:
        assert max(groups(np.asarray(layer.kernel) != 0, 4)) <= 2
    assert parse(None) is None
