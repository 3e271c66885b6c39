"""Recurrent layers for TFLite, which has loops for one example at a time, and none for integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.model.cloning import config_of, copy_weights, from_config

# Each step is a copy of the layer's operators: a second of sound in steps of 10 ms, and some more.
MOST_STEPS = 256


def has_loops(model: keras.Model) -> bool:
    """Whether a layer of a model loops over steps, wherever it is nested.

    Args:
        model: A finished model.
    """
    return any(True for _ in _looping(model))


def unrolled(model: keras.Model) -> keras.Model:
    """The same model without loops: each step of its recurrent layers is a part of the graph.

    TensorFlow's calibration crashes on loops.

    Args:
        model: A finished model.

    Raises:
        TfpruneError: A layer has an open number of steps, too many, or cannot be unrolled.
    """
    for layer in _looping(model):
        steps = _steps(layer)
        if "unroll" not in layer.get_config() or isinstance(layer, _convolutional()):
            raise TfpruneError(
                f"layer '{layer.name}' ({type(layer).__name__}) loops over its steps, and TFLite "
                "cannot calibrate a loop: export tflite, or tflite-dynamic, instead of integers"
            )
        if steps is None or steps > MOST_STEPS:
            said = "an open number of" if steps is None else f"{steps:,}"
            raise TfpruneError(
                f"layer '{layer.name}' has {said} steps, and integer formats need each step in "
                f"the graph: fix them to at most {MOST_STEPS}, or export tflite or tflite-dynamic"
            )
    found = config_of(model)
    twin = from_config(model, dataclasses.replace(found, config=_with_unroll(found.config)))
    copy_weights(model, twin)
    return twin


def _looping(model: keras.Model) -> Iterator[keras.layers.RNN]:
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            yield layer


def _convolutional() -> tuple[type, ...]:
    return (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)


def _steps(layer: keras.layers.RNN) -> int | None:
    built = layer.get_build_config() or {}
    shapes = [shape for shape in built.values() if shape]
    return shapes[0][1] if shapes else None


def _with_unroll(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: True if key == "unroll" else _with_unroll(value) for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_with_unroll(value) for value in config)
    return config
