"""One cut between two trainings: exact, nested, and rewound where weights live."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.errors import UsageError
from tfprune.weights import prune_once, reinitialize, rewind


def _kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(layer.kernel) for layer in model.layers]


@pytest.mark.filterwarnings("ignore:prune_once. the sparsity would have left")
@pytest.mark.parametrize("select", ["magnitude", "random"])
@settings(max_examples=25, deadline=None)
@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_each_tensor_loses_its_share_of_what_lives_and_masks_nest(select, shares):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7)])
    alive = 35
    for share in shares:
        pruned = prune_once(model, share, select=select)
        alive = max(1, alive - round(share * alive))
        before, after = _kernels(model)[0], _kernels(pruned)[0]
        assert np.count_nonzero(after) == alive
        # What is left is untouched, and nothing comes back.
        np.testing.assert_array_equal(after[after != 0], before[after != 0])
        model = pruned


def test_the_global_scope_takes_the_share_of_all_weights_together(make_model):
    model = make_model()
    model.layers[0].kernel.assign(10 * model.layers[0].kernel)
    pruned = prune_once(model, 0.25, scope="global")
    left = [np.count_nonzero(kernel) for kernel in _kernels(pruned)]
    assert sum(left) == 72 - 18
    # The first layer's weights are ten times larger: the last one pays.
    assert left[0] > 40


def test_the_model_itself_stays_as_it_is(make_model):
    model = make_model()
    before = model.get_weights()
    prune_once(model, 0.5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layers_may_have_shares_of_their_own_by_glob(make_model):
    first, last = _kernels(prune_once(make_model(), 0.5, layers={"la*": 0.25}))
    assert np.count_nonzero(first) == 24
    assert np.count_nonzero(last) == 18


def test_biases_are_left_alone(make_model):
    model = make_model()
    for layer in model.layers:
        layer.bias.assign(layer.bias + 1e-9)
    assert all(np.asarray(layer.bias).all() for layer in prune_once(model, 0.9).layers)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prune_rate": 1.5}, "prune_rate is 1.5; it is a share of the weights, from 0 to 1"),
        (
            {"prune_rate": 0.5, "layers": {"first": -1.0}},
            "the share of 'first' is -1; it is a share of the weights, from 0 to 1",
        ),
        (
            {"prune_rate": 0.5, "layers": {"first": 0.1}, "scope": "global"},
            "layers have shares of their own only under the scope 'layer'",
        ),
        (
            {"prune_rate": 0.5, "layers": {"conv*": 0.1}},
            "layers: 'conv*' matches no layer with a kernel to prune",
        ),
    ],
)
def test_what_cannot_be_is_one_line(make_model, options, said):
    with pytest.raises(UsageError) as caught:
        prune_once(make_model(), **options)
    assert str(caught.value) == said


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


def test_redrawn_weights_are_others_of_the_same_kind(make_model):
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


def test_redrawn_layers_draw_each_their_own():
    """Even two of one shape."""
    stack = [keras.layers.Dense(4, name=name) for name in ("one", "two")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    one, two = _kernels(reinitialize(model, 0))
    assert not np.isclose(one, two).any()


def test_redrawing_keeps_what_is_known_of_the_data():
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
def test_redrawn_weights_are_those_of_the_seed_in_layers_of_all_kinds(layer):
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
