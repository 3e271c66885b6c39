from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.artifacts import Artifact, export


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (40, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def model() -> keras.Model:
    """A pruned residual net: half of each kernel is zero, the rest too large to round to zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(x))
    x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = rng.uniform(0.5, 1, weight.shape)
        if weight.name == "kernel":
            values *= rng.choice([-1, 0, 0, 1], weight.shape)
        weight.assign(values)
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="session")
def exported(
    model: keras.Model, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> list[Artifact]:
    return export(model, tmp_path_factory.mktemp("exported"), representative_data=images)


@pytest.fixture(scope="session")
def paths(exported: list[Artifact]) -> dict[str, Path]:
    return {artifact.format: artifact.path for artifact in exported}
