from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tests.artifacts.small import names, one_line
from tfprune.artifacts import export
from tfprune.errors import TfpruneError
from tfprune.formats import load
from tfprune.formats.tflite_convert import has_loops, unrolled

STEPS = np.random.default_rng(0).normal(size=(40, 6, 4)).astype("float32")
LAYERS: dict[str, Callable[[], keras.Layer]] = {
    "lstm": lambda: layers.LSTM(5),
    "gru": lambda: layers.GRU(5),
    "simple": lambda: layers.SimpleRNN(5),
    "both ways": lambda: layers.Bidirectional(layers.GRU(3)),
    "cells": lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(3)])),
    "nested": lambda: keras.Sequential([keras.Input((6, 4)), layers.LSTM(5)]),
}


def net(layer: keras.Layer, steps: int | None = 6) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((steps, 4))
    return keras.Model(inputs, layers.Dense(3)(layer(inputs)))


@pytest.mark.reliability("recurrent layers for devices", "right")
@pytest.mark.parametrize("kind", LAYERS)
def test_a_model_without_loops_gives_the_same(kind: str) -> None:
    model = net(LAYERS[kind]())
    flat = unrolled(model)
    assert has_loops(model)
    assert not has_loops(flat)
    np.testing.assert_allclose(flat(STEPS), model(STEPS), atol=1e-6)


@pytest.mark.slow
@pytest.mark.reliability("recurrent layers for devices", "right")
def test_recurrent_layers_take_one_example_at_a_time(tmp_path: Path) -> None:
    model = net(LAYERS["both ways"]())
    artifacts = export(model, tmp_path, ["tflite", "tflite-int8"], STEPS)
    for artifact in artifacts:
        assert artifact.inputs[0].shape == (1, 6, 4)
        assert artifact.agreement > 0.8
        runtime = load(artifact.path)
        assert runtime.fixed_batch == 1
        # The unrolled file alone shows each step; both must answer.
        assert runtime.macs() is None or runtime.macs() > 0
        assert runtime.predict(STEPS[:5]).shape == (5, 3)
        assert runtime.one(STEPS[0])().shape == (1, 3)


@pytest.mark.reliability("recurrent layers for devices", "refused")
@pytest.mark.parametrize(
    ("layer", "steps", "says"),
    [
        (layers.LSTM(3), None, "has an open number of steps"),
        (layers.LSTM(3), 300, "has 300 steps"),
        (layers.ConvLSTM1D(2, 3), 6, "TFLite cannot calibrate a loop"),
    ],
)
def test_what_cannot_be_unrolled_is_one_line(
    tmp_path: Path, layer: keras.Layer, steps: int | None, says: str
) -> None:
    """TensorFlow's calibration of a loop would end the process."""
    shape = (steps, 6, 4) if "conv" in layer.name else (steps, 4)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(3)(layer(inputs)))
    data = np.random.default_rng(0).normal(size=(20, *(size or 6 for size in shape)))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite-int8"], data)
    assert says in one_line(error)
    assert f"layer '{layer.name}'" in one_line(error)
    assert names(tmp_path) == []
