"""Few values a channel, none far from what it was, and zeros that stay."""

from __future__ import annotations

import zlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfprune
from tfprune.errors import UsageError
from tfprune.formats import load
from tfprune.weights import prune_once, round_weights


def _dense(kernel: np.ndarray) -> keras.Model:
    model = keras.Sequential(
        [keras.Input(kernel.shape[:1]), keras.layers.Dense(kernel.shape[1], use_bias=False)]
    )
    model.set_weights([kernel])
    return model


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(2, 8), seed=st.integers(0, 2**16), share=st.floats(0, 1))
def test_channels_take_few_values_and_move_by_half_a_step(bits, seed, share):
    kernel = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    kernel *= np.random.default_rng(seed + 1).random(kernel.shape) >= share
    (found,) = round_weights(_dense(kernel), bits).get_weights()
    for before, after in zip(kernel.T, found.T, strict=True):
        largest = np.abs(before).max()
        assert len(np.unique(after)) <= 2**bits - 1
        assert np.abs(after - before).max() <= 0.5001 * largest / (2 ** (bits - 1) - 1)
        # The scale stays, so rounding again changes nothing.
        assert np.abs(after).max() == pytest.approx(largest, rel=1e-6)
        assert not after[before == 0].any()
    np.testing.assert_allclose(
        round_weights(_dense(found), bits).get_weights()[0], found, rtol=1e-5, atol=1e-7
    )


def test_each_channel_of_a_depthwise_kernel_has_a_scale_of_its_own():
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), keras.layers.DepthwiseConv2D(3, depth_multiplier=2)]
    )
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 2)) * [[1, 10], [100, 1000]]
    model.layers[0].kernel.assign(kernel)
    found = round_weights(model, 2).layers[0].kernel.numpy()
    np.testing.assert_allclose(np.abs(found).max((0, 1)), np.abs(kernel).max((0, 1)), rtol=1e-5)


def test_an_embedding_has_one_scale():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(50, 6)])
    found = round_weights(model, 3).layers[0].embeddings.numpy()
    assert len(np.unique(found)) <= 7


def test_the_model_biases_and_excluded_layers_stay(make_model):
    model = make_model()
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    before = [array.copy() for array in model.get_weights()]
    found = round_weights(model, 2, exclude="last").get_weights()
    for old, same in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, same)
    changed = [not np.array_equal(old, new) for old, new in zip(before, found, strict=True)]
    assert changed == [True, False, False, False]


@pytest.mark.slow
def test_an_int8_file_stores_as_few_values_and_compresses_below_a_plain_one(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(32, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, name="second"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    pruned = prune_once(model, 0.5)
    images = np.random.default_rng(0).uniform(0, 255, (40, 8, 8, 3)).astype(np.float32)
    sizes = []
    for name, net in (("plain", pruned), ("rounded", round_weights(pruned, 4))):
        (artifact,) = tfprune.export(
            net, tmp_path / name, formats=["tflite-int8"], representative_data=images
        )
        runtime = load(artifact.path)
        stored = {each.size: each for each in runtime.weights()}[3 * 3 * 32 * 32]
        # BatchNorm folded in scales whole channels, so the steps stay even ones.
        assert len(np.unique(stored.living)) <= (14 if name == "rounded" else 254)
        sizes.append(len(zlib.compress(artifact.path.read_bytes(), 9)))
    assert sizes[1] < 0.75 * sizes[0]


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_bits_out_of_range_are_told(make_model, bits):
    with pytest.raises(UsageError, match=rf"bits={bits} is out of range: give 2 to 8"):
        round_weights(make_model(), bits)
