"""Small models, and invented operator times."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from tfprune.devices.operators import Operator
from tfprune.filters import ChannelGroups

from ..filters.harness import randomised


def residual() -> keras.Model:
    """A stem and a block around one residual group; depthwise, flattened and dense layers."""
    x = inputs = keras.Input((8, 8, 3))
    x = stem = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(x)
    x = layers.Conv2D(8, 1, name="outer")(x)
    x = layers.Add()([x, stem])
    x = layers.SeparableConv2D(6, 3, strides=2, padding="valid", name="separable")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(10, activation="relu", name="hidden")(x)
    return randomised(keras.Model(inputs, layers.Dense(4, name="logits")(x), name="residual"))


def chain(size: int = 6, filters: tuple[int, int] = (12, 16)) -> keras.Model:
    """Two convolutions and a head."""
    return randomised(
        keras.Sequential(
            [
                keras.Input((size, size, 2)),
                layers.Conv2D(filters[0], 3, padding="same", activation="relu", name="first"),
                layers.Conv2D(filters[1], 3, padding="same", activation="relu", name="second"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, name="logits"),
            ],
            name="chain",
        )
    )


class Times:
    """Times that fall in steps: filters are computed `tile` at a time, as runtimes do."""

    def __init__(self, tile: int) -> None:
        self.tile = tile

    def __call__(self, operators: Sequence[Operator]) -> np.ndarray:
        return np.array([self._milliseconds(operator) for operator in operators])

    def _milliseconds(self, operator: Operator) -> float:
        read = 1 if operator.kind == "depthwise" else operator.inputs
        tiles = -(-operator.outputs // self.tile)
        pixels = operator.target[0] * operator.target[1]
        return 0.1 + pixels * operator.window[0] * read * tiles * 1e-3


def drawn_scores(groups: ChannelGroups, seed: int) -> np.ndarray:
    """Different scores for all units."""
    return np.random.default_rng(seed).permutation(groups.unit_count) / groups.unit_count + 0.2
