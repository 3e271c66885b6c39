from __future__ import annotations

import keras
import numpy as np
import pytest


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Sixteen batches of four: six features, three classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 6)).astype("float32"), rng.integers(0, 3, 64)


@pytest.fixture
def make_model():
    """Makes an uncompiled MLP with kernels of 48 and 24 weights; keywords go to its first layer."""

    def make(seed: int = 0, **first: object) -> keras.Model:
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(8, activation="relu", name="first", **first),
                keras.layers.Dense(3, name="last", dtype="float32"),
            ]
        )

    return make


@pytest.fixture
def compiled(make_model):
    """Makes that MLP compiled; keywords go to `compile`."""

    def make(optimizer: object = "adam", seed: int = 0, **options: object) -> keras.Model:
        model = make_model(seed)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, **options)
        return model

    return make


@pytest.fixture
def kernels():
    """Reads a model's kernels as arrays, by "layer/weight" name."""
    from tfprune.weights import prunable

    def read(model: keras.Model) -> dict[str, np.ndarray]:
        return {
            f"{path}/{variable.name}": keras.ops.convert_to_numpy(variable).copy()
            for path, variable in prunable(model)
        }

    return read
