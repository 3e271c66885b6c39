"""Regression: how a diabetes progresses within a year, from ten figures of a patient."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_diabetes


def patients(seed: int = 0) -> dict[str, Any]:
    """The 442 patients of Efron et al. 2004, which scikit-learn contains.

    Args:
        seed: of the splits.

    Returns:
        Splits of float32 (n, 10), standardised, and of the progression, float32 (n,).
    """
    table = load_diabetes()
    order = np.random.default_rng(seed).permutation(len(table.target))
    x = (table.data * np.sqrt(len(table.target))).astype(np.float32)[order]
    y = table.target.astype(np.float32)[order]
    return {
        "train": (x[:300], y[:300]),
        "validation": (x[300:370], y[300:370]),
        "test": (x[370:], y[370:]),
    }


def perceptron(input_shape: tuple[int, ...], width: int = 32) -> keras.Model:
    """Two hidden layers.

    Args:
        input_shape: of a patient.
        width: neurons of a hidden layer.
    """
    inputs = keras.Input(input_shape)
    x = layers.Dense(width, activation="relu")(inputs)
    x = layers.Dense(width, activation="relu")(x)
    outputs = layers.Dense(1)(x)
    # The mean progression is 152: the last layer need not learn it.
    outputs = layers.Rescaling(50.0, 150.0)(outputs)
    return keras.Model(inputs, outputs, name="perceptron")
