from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def model() -> keras.Model:
    """Two convolutions with BatchNorm and a residual Add; logits of four classes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="first")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.Conv2D(4, 3, padding="same", name="second")(x)
    x = keras.layers.Add()([x, keras.layers.BatchNormalization()(y)])
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    rng = np.random.default_rng(0)
    # Away from the initial values, so that a lost BatchNorm or bias shows.
    model.set_weights([rng.uniform(0.2, 1, w.shape) * _signs(rng, w) for w in model.weights])
    return model


def _signs(rng: np.random.Generator, weight: keras.Variable) -> np.ndarray:
    signs = rng.choice([-1.0, 1.0], weight.shape)
    return np.abs(signs) if "variance" in weight.name else signs


@pytest.fixture(scope="session")
def files(
    model: keras.Model, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One exported file a format."""
    directory = tmp_path_factory.mktemp("files")
    artifacts = tfprune.export(model, directory, representative_data=images)
    return {artifact.format: artifact.path for artifact in artifacts}
