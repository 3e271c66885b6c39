"""Weights of a cluster share their value, whatever trains them, and zeros stay zero."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tables import slow
from tfprune import polynomial_decay
from tfprune.errors import UsageError
from tfprune.quantize import KeepClusters, cluster
from tfprune.quantize.clustering import ClusterConstraint
from tfprune.weights import KeepZeros, PruneWeights, prunable, prune_once


def _net() -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Dense(12, activation="relu", name="dense")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def _kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: np.array(variable) for path, variable in prunable(model)}


def _partition(values: np.ndarray) -> list[int]:
    return np.unique(values, return_inverse=True)[1].reshape(-1).tolist()


def _assert_shared(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    """Weights that were equal are equal, bit for bit, and what was zero is zero."""
    for path, values in before.items():
        for value in np.unique(values):
            assert len(np.unique(after[path][values == value])) == 1
        np.testing.assert_array_equal(after[path][values == 0], 0)


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 6, 6, 2)).astype(np.float32), rng.integers(0, 3, 24)


@pytest.mark.parametrize("start", ["linear", "density", "k-means++"])
@pytest.mark.parametrize("scope", ["layer", "channel"])
def test_each_part_has_so_many_values_and_zeros_stay(scope, start):
    model = prune_once(_net(), 0.3)
    before, after = _kernels(model), _kernels(cluster(model, 4, scope=scope, start=start))
    parts = {
        "conv": 4,
        # A depthwise kernel (3, 3, 4, 1) has four channels.
        "depthwise": 4,
        "dense": 12,
        "logits": 3,
    }
    for path, channels in parts.items():
        values = after[path]
        if scope == "layer":
            columns = [values]
        else:
            columns = list(np.moveaxis(values.reshape(-1, channels), -1, 0))
        assert max(len(np.unique(column)) for column in columns) == 4
        np.testing.assert_array_equal(values == 0, before[path] == 0)


@given(st.integers(2, 12), st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_a_weight_has_the_centroid_that_is_nearest(values, seed):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(20)])
    weight = np.random.default_rng(seed).normal(size=(6, 20)).astype(np.float32)
    model.layers[0].kernel.assign(weight)
    found = np.array(cluster(model, values, seed=seed).layers[0].kernel)
    centroids = np.unique(found)
    assert len(centroids) <= values
    nearest = np.abs(weight[..., None] - centroids).min(axis=-1)
    np.testing.assert_allclose(np.abs(weight - found), nearest, rtol=1e-4, atol=1e-6)
    # Moving to the nearest centroid and taking the mean is where k-means ends.
    for centroid in centroids:
        np.testing.assert_allclose(weight[found == centroid].mean(), centroid, rtol=1e-3, atol=2e-3)


def test_few_values_are_left_as_they_are_and_twice_is_once():
    once = cluster(_net(), 5)
    np.testing.assert_equal(_kernels(cluster(once, 5)), _kernels(once))
    np.testing.assert_equal(_kernels(cluster(once, 16)), _kernels(once))


def test_only_the_chosen_layers_are_clustered_and_the_model_is_as_it_was():
    model = _net()
    before = _kernels(model)
    after = _kernels(cluster(model, 3, include=["conv", "dense"], exclude="dense"))
    assert len(np.unique(after["conv"])) == 3
    for path in ("depthwise", "dense", "logits"):
        np.testing.assert_array_equal(after[path], before[path])
    np.testing.assert_equal(_kernels(model), before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"values": 1}, "values=1 is out of range: give 2 to 256"),
        ({"values": 257}, "values=257 is out of range"),
        ({"scope": "global"}, "scope is 'global'; choose 'layer' or 'channel'"),
        ({"start": "random"}, "start is 'random'; choose 'linear' or 'density' or 'k-means\\+\\+'"),
        ({"include": "head"}, "has no layer 'head'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said):
    with pytest.raises(UsageError, match=said):
        cluster(_net(), **arguments)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize(
    ("optimizer", "others"),
    [
        *((name, "none") if name == "adam" else slow(name, "none") for name in OPTIMIZERS),
        slow("adam", "zeros before"),
        slow("adam", "zeros behind"),
        ("ema", "swap"),
        slow("sgd", "best"),
    ],
)
def test_equal_weights_stay_equal_and_move(optimizer, others):
    x, y = _data()
    model = cluster(prune_once(_net(), 0.4), 4)
    before = _kernels(model)
    model.compile(
        OPTIMIZERS[optimizer](),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=2,
    )
    callbacks = {
        "none": [KeepClusters()],
        "zeros before": [KeepZeros(), KeepClusters()],
        "zeros behind": [KeepClusters(), KeepZeros()],
        "swap": [KeepClusters(), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
        "best": [KeepClusters(), keras.callbacks.EarlyStopping("loss", restore_best_weights=True)],
    }[others]
    model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=callbacks)
    after = _kernels(model)
    _assert_shared(before, after)
    for path in before:
        assert not np.array_equal(after[path], before[path])
    # Nothing is left in the model: the next training moves each weight by itself.
    assert all(variable.constraint is None for _, variable in prunable(model))
    model.fit(x, y, verbose=0)
    assert len(np.unique(_kernels(model)["dense"])) > 4


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = cluster(_net(), 4)
        before = _kernels(model)
        model.compile("sgd", "mse")
        x, _ = _data()
        model.fit(x, np.zeros((24, 3)), verbose=0, callbacks=[KeepClusters()])
    finally:
        keras.config.set_dtype_policy("float32")
    _assert_shared(before, _kernels(model))


def test_a_value_follows_the_sum_of_its_gradients():
    # One step of plain SGD: each value moves by the mean of what its weights would.
    x = np.eye(4, dtype=np.float32)
    y = np.array([[1.0], [2.0], [3.0], [10.0]], np.float32)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[5.0], [5.0], [0.0], [7.0]])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[KeepClusters()])
    # The gradient of the loss is (w - y) / 2: by -2 and -1.5 for the first two, -1.5 for the last.
    np.testing.assert_allclose(
        np.array(model.layers[0].kernel)[:, 0], [3.25, 3.25, 0, 8.5], rtol=1e-6
    )


@given(
    # TensorFlow takes subnormal numbers for zeros.
    st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), min_size=1, max_size=40)
)
@settings(max_examples=50, deadline=None)
def test_shared_values_are_left_bit_for_bit(values):
    weight = np.array(values, np.float32)
    constraint = ClusterConstraint(weight.shape)
    constraint.read(weight)
    result = np.array(constraint(weight))
    np.testing.assert_array_equal(result, weight)
    assert constraint.count == len(np.unique([0, *weight]))


def test_pruning_in_the_same_fit_is_refused_and_leaves_nothing():
    model = cluster(_net(), 4)
    model.compile("sgd", "mse")
    x, _ = _data()
    for callbacks in (lambda p, k: [p, k], lambda p, k: [k, p]):
        pruner = PruneWeights(polynomial_decay(0, 0.5, begin=0, end=3, frequency=1))
        with pytest.raises(UsageError, match="KeepClusters: PruneWeights in the same fit"):
            model.fit(x, np.zeros((24, 3)), verbose=0, callbacks=callbacks(pruner, KeepClusters()))


@pytest.mark.slow
def test_an_int8_file_has_as_few_values(tmp_path):
    from tfprune.artifacts import export
    from tfprune.formats.lut import _of_few_values

    x, _ = _data()
    (artifact,) = export(cluster(_net(), 6), tmp_path, ["tflite-int8"], x)
    few, many = _of_few_values(artifact.path.read_bytes())
    assert not many
    bits = [bits for _, _, bits in few]
    assert len(bits) == 4
    assert max(bits) == 3
