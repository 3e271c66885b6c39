"""The nets and their exports, under short names."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.artifacts import Artifact


@pytest.fixture(scope="session")
def images(export_images: np.ndarray) -> np.ndarray:
    return export_images


@pytest.fixture(scope="session")
def model(export_model: keras.Model) -> keras.Model:
    return export_model


@pytest.fixture(scope="session")
def formats(export_formats: list[str]) -> list[str]:
    return export_formats


@pytest.fixture(scope="session")
def exported(exports: list[Artifact]) -> list[Artifact]:
    return exports


@pytest.fixture(scope="session")
def paths(export_paths: dict[str, Path]) -> dict[str, Path]:
    return export_paths


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
