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
from tfprune.model.quantized_layers import STEPS, has_offset
from tfprune.quantize import FakeQuantize, QuantizedLayer, QuantizedPReLU, QuantizedScale


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
        step = np.float32((high - low) / STEPS)

        def to_range(x: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            return tf.quantization.fake_quant_with_min_max_args(x, low, high), tf.constant(step)

        return to_range
    if isinstance(layer, QuantizedLayer):

        def multiply(x: Any, step: Any) -> tuple[Any, Any]:
            # The same layer may be called on tensors of several ranges.
            with tf.init_scope():
                kernel, bias = _constants(layer.file_weights(float(tf.get_static_value(step))))
            # Nothing of the file reads the second.
            return layer.compute(x, kernel, bias), step

        return multiply
    if isinstance(layer, QuantizedPReLU):
        (slopes,) = _constants([layer.file_slopes()])
        return lambda x: layer.compute(x, slopes)
    if isinstance(layer, QuantizedScale):
        factor, offset = _constants(layer.file_constants())

        def scale(x: Any, step: Any, training: bool = False) -> tuple[Any, ...]:
            beside = 4 if has_offset(layer.layer) else 1
            return layer.compute(x, factor, offset), *[step] * beside

        return scale
    return None


def _constants(tensors: Any) -> list[np.ndarray | None]:
    return [None if each is None else np.asarray(each, np.float32) for each in tensors]
