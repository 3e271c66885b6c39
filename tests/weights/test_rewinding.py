"""A rewound model has early weights where it lives; one drawn anew or shuffled is a control."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tfprune.errors import UsageError
from tfprune.weights import prunable, prune_once, reinitialize, rewind, shuffle_weights
from tfprune.weights.rewinding import shuffle_arrays

masks = arrays(bool, array_shapes(max_dims=4, max_side=5))


def _kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(layer.kernel) for layer in model.layers]


def test_rewinding_brings_the_early_weights_back_where_weights_live(make_model):
    origin, trained = make_model(seed=1), make_model(seed=2)
    for layer in origin.layers:
        layer.bias.assign(layer.bias + 1.0)
    ticket = prune_once(trained, 0.5)
    again = rewind(ticket, origin)
    for mine, mask, early in zip(_kernels(again), _kernels(ticket), _kernels(origin), strict=True):
        np.testing.assert_array_equal(mine, np.where(mask != 0, early, 0))
    for layer, early in zip(again.layers, origin.layers, strict=True):
        np.testing.assert_array_equal(layer.bias, early.bias)
    # Both models it was made from are as they were.
    assert np.count_nonzero(_kernels(origin)[0]) == 48


def test_rewinding_to_other_shapes_is_refused(make_model):
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)], name="other")
    model = make_model()
    with pytest.raises(UsageError) as caught:
        rewind(model, other)
    assert str(caught.value) == (
        f"{model.name} cannot be rewound to other: their weights have other shapes"
    )


def test_reinitialized_weights_are_others_of_the_same_kind(make_model):
    model = make_model()
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    before = np.asarray(model(x))
    one, same, other = reinitialize(model, 1), reinitialize(model, 1), reinitialize(model, 2)
    for mine, again, third, old in zip(*map(_kernels, (one, same, other, model)), strict=True):
        assert mine.shape == old.shape
        np.testing.assert_array_equal(mine, again)
        assert not np.isclose(mine, third).any()
        assert not np.isclose(mine, old).any()
        # Glorot's uniform distribution, whose bound is that of this shape.
        bound = np.sqrt(6 / (np.prod(old.shape[:-2]) * sum(old.shape[-2:])))
        assert 0.8 * bound < np.abs(mine).max() <= bound
    np.testing.assert_array_equal(model(x), before)


def test_reinitialized_layers_draw_each_their_own():
    """Even two of one shape."""
    stack = [keras.layers.Dense(4, name=name) for name in ("one", "two")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    one, two = _kernels(reinitialize(model, 0))
    assert not np.isclose(one, two).any()


def test_reinitializing_keeps_what_is_known_of_the_data():
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)))
    model = keras.Sequential([keras.Input((4,)), normalization, keras.layers.Dense(2)])
    again = reinitialize(model, 1)
    for old, new in zip(normalization.weights, again.layers[0].weights, strict=True):
        np.testing.assert_array_equal(old, new)
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(normalization(x), again.layers[0](x))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Dense(4),
        lambda: keras.layers.Conv1D(4, 2, kernel_initializer="he_normal"),
        lambda: keras.layers.GRU(3, return_sequences=True),
        lambda: keras.Sequential([keras.layers.Dense(4, kernel_initializer="orthogonal")]),
        lambda: keras.layers.TimeDistributed(keras.layers.Dense(4)),
    ],
)
def test_reinitialized_weights_are_those_of_the_seed_in_layers_of_all_kinds(layer):
    model = keras.Sequential([keras.Input((5, 3)), layer()])
    kernels = []
    for seed in (3, 3, 4):
        # What is drawn elsewhere has no say.
        keras.utils.set_random_seed(len(kernels))
        kernels.append([np.asarray(v) for v in reinitialize(model, seed).trainable_variables])
    for one, same, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, same)
        # Biases begin at zero whatever the seed.
        assert one.any() != np.isclose(one, other).all()


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
