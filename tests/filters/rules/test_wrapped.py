from __future__ import annotations

import keras
import pytest
from keras import layers

from ..harness import run_slim_test
from ..models import chain


def test_a_layer_at_every_step() -> None:
    model = chain(
        layers.TimeDistributed(layers.Conv2D(4, 2, activation="relu"), name="outer"),
        layers.TimeDistributed(layers.BatchNormalization()),
        layers.TimeDistributed(layers.MaxPooling2D(2)),
        layers.TimeDistributed(layers.Flatten()),
        layers.TimeDistributed(layers.Dense(5)),
        layers.LSTM(3),
        shape=(2, 5, 5, 2),
    )
    groups = run_slim_test(model)
    assert groups[0].layers == ("outer",)
    assert [group.size for group in groups] == [4, 5, 3, 2]


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (
            keras.Sequential([keras.Input((4,)), layers.Dense(3)]),
            "mine hides them in its Sequential",
        ),
        (layers.Lambda(lambda x: x), "inner is a Lambda, whose function nobody can look into"),
    ],
)
def test_frozen(inner: layers.Layer, reason: str) -> None:
    inner.name = "inner"
    wrapped = layers.TimeDistributed(inner, name="mine")
    model = chain(layers.Dense(4), layers.Dense(4, name="held"), wrapped, shape=(3, 2))
    assert run_slim_test(model, save=False).frozen["held"] == reason
