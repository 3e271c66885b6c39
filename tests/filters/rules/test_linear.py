from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

from ..harness import randomised, run_slim_test
from ..models import chain, conv, frozen_between

CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "conv1d": lambda: chain(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        layers.Conv1D(4, 3, strides=2),
        layers.Conv1D(3, 2),
        shape=(9, 2),
    ),
    "conv2d": lambda: chain(
        conv(4, dilation_rate=2), layers.Conv2D(4, 3, strides=2), layers.Conv2D(5, 1)
    ),
    "conv3d": lambda: chain(
        layers.Conv3D(4, 2, strides=2, padding="same"), layers.Conv3D(3, 2), shape=(4, 4, 4, 1)
    ),
    "transposed 1d": lambda: chain(
        layers.Conv1DTranspose(4, 3, strides=2),
        layers.Conv1DTranspose(3, 2, padding="same", activation="relu"),
        shape=(5, 2),
    ),
    "transposed 2d": lambda: chain(
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.Conv2DTranspose(3, 2, dilation_rate=2, output_padding=None),
        shape=(4, 4, 2),
    ),
    "transposed 3d": lambda: chain(
        layers.Conv3DTranspose(4, 2, strides=2), layers.Conv3DTranspose(3, 2), shape=(2, 2, 2, 2)
    ),
    "mlp": lambda: chain(layers.Flatten(), layers.Dense(6, "relu"), layers.Dense(5), shape=(3, 2)),
    "dense on steps": lambda: chain(layers.Dense(5, "relu"), layers.Dense(3), shape=(4, 2)),
    "dense on maps": lambda: chain(conv(4), layers.Dense(5, "relu"), layers.Dense(3)),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save=construct == "transposed 2d")


def test_embedding() -> None:
    x = keras.Input((5,), dtype="int32")
    y = layers.Conv1D(4, 2)(layers.Embedding(4, 6, name="table")(x))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    groups = run_slim_test(model)
    assert groups[0].layers == ("table",)


def test_regularizers_and_constraints_stay() -> None:
    """Those of a filter speak of what is left of it."""
    norm = keras.constraints.MaxNorm(0.5, axis=[0, 1, 2])
    model = randomised(
        chain(
            conv(4, name="a"),
            conv(4, name="b", kernel_regularizer="l2", kernel_constraint=norm),
            layers.Dense(3, name="c", kernel_regularizer="orthogonal_regularizer"),
        )
    )
    slim = tfprune.remove_filters(model, {"a": [0], "b": [1, 2]})
    b = slim.get_layer("b")
    assert b.kernel_constraint.get_config() == norm.get_config()
    assert isinstance(b.kernel_regularizer, keras.regularizers.L2)
    slim.compile("sgd", "mse")
    slim.fit(np.ones((4, 6, 6, 2)), np.ones((4, 2)), verbose=0)
    assert np.linalg.norm(np.asarray(b.kernel).reshape(-1, 2), axis=0).max() <= 0.5 + 1e-5


def test_lora_is_frozen() -> None:
    model = frozen_between(layers.Dense(4, name="mine"), conv(3))
    model.get_layer("mine").enable_lora(2)
    groups = run_slim_test(model, save=False)
    assert groups.frozen["held"] == "mine has LoRA or quantized weights"
