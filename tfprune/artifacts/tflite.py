"""Converts a SavedModel to TFLite: float32, or full int8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from tfprune.artifacts.savedmodel import INPUT_NAME
from tfprune.errors import TfpruneError
from tfprune.quiet import quiet

# Ranges hardly move after some hundred images, and calibration runs them one by one.
CALIBRATION_IMAGES = 500
_MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


def to_float(saved_model: Path) -> bytes:
    """Converts to float32 with TFLite's builtin operators only.

    Args:
        saved_model: A SavedModel directory.

    Returns:
        The file's content.

    Raises:
        TfpruneError: An operation of the model has no builtin operator.
    """
    return _convert(_converter(saved_model))


def to_int8(saved_model: Path, representative_data: np.ndarray) -> bytes:
    """Converts to int8 throughout: weights per channel, activations, input and output.

    Weights are quantized symmetrically (Jacob et al., arXiv:1712.05877; Krishnamoorthi,
    arXiv:1806.08342), so that a zero stays exactly zero.

    Args:
        saved_model: A SavedModel directory.
        representative_data: Training images, shape `(n, h, w, c)`; at most `CALIBRATION_IMAGES`
            of them, evenly spread, set the ranges of the activations.

    Returns:
        The file's content.

    Raises:
        TfpruneError: An operation of the model has no builtin operator.
    """
    images = spread(representative_data, CALIBRATION_IMAGES)

    def feed() -> Iterator[dict[str, np.ndarray]]:
        for image in images:
            yield {INPUT_NAME: image[None].astype(np.float32)}

    converter = _converter(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = feed
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return _convert(converter)


def spread(images: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the images, evenly spread over all of them."""
    if len(images) <= most:
        return images
    return images[np.linspace(0, len(images) - 1, most).round().astype(int)]


def _converter(saved_model: Path) -> tf.lite.TFLiteConverter:
    # from_concrete_functions leaves Keras 3 variables as resources, which calibration cannot read.
    return tf.lite.TFLiteConverter.from_saved_model(str(saved_model))


def _convert(converter: tf.lite.TFLiteConverter) -> bytes:
    try:
        with quiet():
            return converter.convert()
    except ConverterError as error:
        missing = sorted(set(_MISSING.findall(str(error))))
        if not missing:
            raise
        raise TfpruneError(
            f"TFLite has no builtin operator for {', '.join(missing)}: "
            "leave TFLite out, or replace the layers that use it"
        ) from error
