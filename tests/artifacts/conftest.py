from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.artifacts import FORMATS, Artifact, export


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (40, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def model(images: np.ndarray) -> keras.Model:
    """A pruned net with a depthwise layer and a residual: three of four weights are zero, and the
    rest is too large to round to zero. Its classes vary over the images."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 1)(y))
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(keras.layers.Add()([x, y])))
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = rng.uniform(0.5, 1, weight.shape)
        if weight.name == "kernel":
            values *= rng.choice([-1, 0, 0, 0, 0, 0, 0, 1], weight.shape)
        weight.assign(values)
    bias = model.layers[-1].bias
    bias.assign(bias - np.asarray(model(images, training=False)).mean(axis=0))
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="session")
def several() -> keras.Model:
    """Two inputs in a dict, two outputs in a dict, whose order is not that of their names."""
    keras.utils.set_random_seed(0)
    right, left = keras.Input((4,), name="right"), keras.Input((6, 6, 1), name="left")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(left))
    x = keras.layers.Concatenate()([x, right])
    outputs = {
        "what": keras.layers.Dense(4, name="what")(x),
        "how": keras.layers.Dense(2, name="how")(x),
    }
    return keras.Model({"right": right, "left": left}, outputs)


@pytest.fixture(scope="session")
def formats() -> list[str]:
    """All that can be written here; ONNX is an extra."""
    here = importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime")
    return [name for name in FORMATS if name != "onnx" or here]


@pytest.fixture(scope="session")
def exported(
    model: keras.Model,
    images: np.ndarray,
    formats: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Artifact]:
    return export(model, tmp_path_factory.mktemp("exported"), formats, images)


@pytest.fixture(scope="session")
def paths(exported: list[Artifact]) -> dict[str, Path]:
    return {artifact.format: artifact.path for artifact in exported}
