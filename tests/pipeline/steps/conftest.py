"""What the tests of steps share: a net that is small enough to train, and trainings left out."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from tfprune.pipeline.steps import training, weights

TRAIN = {"epochs": 4, "batch_size": 20, "learning_rate": 0.05}


def tiny_net() -> keras.Model:
    """Two dense layers for the digits."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="one"),
            keras.layers.Dense(10, name="two"),
        ]
    )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[keras.Model, Any]]:
    """What the trainings of steps are given, in place of doing them: (model, callbacks)."""
    found = []

    def fitted(step, model, context, callbacks, first_epoch=0):
        found.append((model, callbacks))
        return model, {}

    for module in (training, weights):
        monkeypatch.setattr(module, "fit", fitted)
    return found
