"""Masks drawn by chance, of as many weights in each tensor as others have."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfprune.model import cloning
from tfprune.weights.select import prunable


def shuffled(arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The entries of each array in another order.

    Of masks, this is a random control of equal density in each tensor. Masks that nest still do:
    the same seed moves the same places.

    Args:
        arrays: of any shapes.
        seed: of the order, at least 0.

    Returns:
        New arrays of the same shapes.
    """
    return [
        np.random.default_rng((seed, place)).permutation(array.ravel()).reshape(array.shape)
        for place, array in enumerate(arrays)
    ]


def scattered(model: keras.Model, seed: int) -> keras.Model:
    """A model whose prunable weights have changed places, and so its zeros, each tensor on its own.

    Under `rewound` to another model it is the random control of `tickets`.

    Args:
        model: a pruned model; it is not changed.
        seed: of the places, at least 0.

    Returns:
        A new model.
    """
    twin = cloning.copy(model)
    variables = [variable for _, variable in prunable(twin)]
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    for variable, value in zip(variables, shuffled(values, seed), strict=True):
        variable.assign(value)
    return twin
