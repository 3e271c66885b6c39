from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.filters import recalibrate

from .harness import randomised


@pytest.fixture
def model() -> keras.Model:
    return randomised(
        keras.Sequential(
            [
                keras.Input((3, 3, 2)),
                layers.Conv2D(4, 2, name="conv"),
                layers.BatchNormalization(name="first", momentum=0.9),
                layers.ReLU(),
                keras.Sequential([layers.BatchNormalization(name="second")], name="inner"),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
    )


def test_statistics_are_the_mean_over_batches(model: keras.Model) -> None:
    images = np.random.default_rng(0).normal(2, 3, (24, 3, 3, 2)).astype(np.float32)
    twin = recalibrate(model, images, batch_size=8)
    maps = np.asarray(model.get_layer("conv")(images)).astype(np.float64).reshape(3, -1, 4)
    norm = twin.get_layer("first")
    np.testing.assert_allclose(norm.moving_mean, maps.mean(1).mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, maps.var(1).mean(0), rtol=1e-4)
    # The next norm sees what the first makes of the statistics of each batch.
    scaled = (maps - maps.mean(1, keepdims=True)) / np.sqrt(maps.var(1, keepdims=True) + 1e-3)
    gamma, beta = (np.asarray(each) for each in (norm.gamma, norm.beta))
    seen = np.maximum(scaled * gamma + beta, 0)
    inner = twin.get_layer("inner").get_layer("second")
    np.testing.assert_allclose(inner.moving_mean, seen.mean(1).mean(0), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.9


def test_all_else_and_the_original_stay(model: keras.Model) -> None:
    before = model.get_weights()
    images = np.random.default_rng(0).uniform(0, 255, (10, 3, 3, 2)).astype(np.uint8)
    twin = recalibrate(model, images)
    assert not twin.compiled
    for variable, other, old in zip(model.weights, twin.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)
        if variable.trainable:
            np.testing.assert_array_equal(other, old)
        else:
            assert (np.asarray(other) != old).all()


def test_a_frozen_norm_keeps_its_statistics(model: keras.Model) -> None:
    model.get_layer("first").trainable = False
    twin = recalibrate(model, np.ones((4, 3, 3, 2), np.float32))
    old = model.get_layer("first").moving_mean
    np.testing.assert_array_equal(twin.get_layer("first").moving_mean, old)


def test_it_stays_compiled(model: keras.Model) -> None:
    model.compile("adam", "mse", metrics=["mae"])
    twin = recalibrate(tfprune.slim(model, filters=0.5), np.ones((4, 3, 3, 2), np.float32))
    assert twin.compiled
    assert isinstance(twin.optimizer, keras.optimizers.Adam)
    assert twin.optimizer is not model.optimizer
