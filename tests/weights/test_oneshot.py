"""One cut between two trainings: exact, and nested."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.errors import UsageError
from tfprune.weights import prune_once


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
