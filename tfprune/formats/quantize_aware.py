"""The SavedModel of a quantization-aware model, from which TFLite's converter takes all ranges."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.formats.savedmodel import write_saved_model
from tfprune.quantize import FakeQuantize, QuantizedLayer, QuantizedScale


def write_with_ranges(model: keras.Model, directory: Path, batch: int | None = None) -> None:
    """Saves a quantization-aware model with its rounded weights and TensorFlow's fake quantization.

    The converter makes the ranges of these operations those of its tensors. It finds the steps of
    the weights itself: the largest weight of each channel is 127 of them.

    Args:
        model: from `tfprune.quantize_aware`, whose ranges are known.
        directory: Where to; it must not exist.
        batch: Examples that it takes at once; None for the batch of the model's own inputs.
    """
    with _as_in_file(model):
        write_saved_model(model, directory, batch)


@contextlib.contextmanager
def _as_in_file(model: keras.Model) -> Iterator[None]:
    replaced = []
    try:
        for layer in model._flatten_layers(include_self=False):
            call = _call_in_file(layer)
            if call is not None:
                layer.call = call
                replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            del layer.call


def _call_in_file(layer: Any) -> Callable[..., Any] | None:
    """What a layer of a quantization-aware model computes in the file; None for another layer."""
    if isinstance(layer, FakeQuantize):
        low, high = layer.file_range()

        def to_range(x: Any, *_: Any, **__: Any) -> Any:
            return tf.quantization.fake_quant_with_min_max_args(x, low, high)

        return to_range
    if isinstance(layer, QuantizedLayer):
        kernel, bias = _constants(layer.file_weights())

        def multiply(x: Any) -> Any:
            return layer.compute(x, kernel, bias)

        return multiply
    if isinstance(layer, QuantizedScale):
        factor, offset = _constants(layer.file_constants())

        def scale(x: Any, training: bool = False) -> Any:
            return layer.compute(x, factor, offset)

        return scale
    return None


def _constants(tensors: Any) -> list[np.ndarray | None]:
    return [None if each is None else np.asarray(each, np.float32) for each in tensors]
