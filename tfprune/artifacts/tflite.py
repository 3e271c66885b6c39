"""Converts a SavedModel to TFLite, with builtin operators only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from tfprune.quiet import quiet

Kind = Literal["float32", "float16", "dynamic", "sparse", "int8", "int16x8"]
Ends = Literal["int8", "float"]
# By the name of the tensor, each of shape `(n, ...)`.
Feeds = dict[str, np.ndarray]

# Ranges hardly move after some hundred images, and calibration runs them one by one.
CALIBRATION_IMAGES = 500
_MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACE = re.compile(r'"([\w/.-]+)(?:@|")')
# Formats that calibrate, and for the two what their activations are.
INTEGER = {
    "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
    "int16x8": (
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.int16,
    ),
}


class MissingOperatorError(Exception):
    """TFLite has no builtin operator for some of a model's.

    Args:
        operators: Their names.
        places: Names of operations in the graph, some of which may be those that use them.
    """

    def __init__(self, operators: list[str], places: list[str]) -> None:
        super().__init__(", ".join(operators))
        self.operators = operators
        self.places = places


def convert(
    saved_model: Path,
    kind: Kind,
    feeds: Feeds | None = None,
    io: Ends = "int8",
    batch: int = 1,
) -> bytes:
    """Converts with TFLite's builtin operators only.

    Weights are quantized symmetrically and per channel (Jacob et al., arXiv:1712.05877;
    Krishnamoorthi, arXiv:1806.08342), so that a zero stays exactly zero; to float16 they are
    rounded, which keeps zeros too.

    Args:
        saved_model: A SavedModel directory.
        kind: float32; float16 weights; "dynamic" int8 weights with activations quantized while it
            runs; "sparse" float32 weights stored without their zeros; int8 throughout; or int16
            activations with int8 weights.
        feeds: Training images by the name of the input they go to, in its dtype. int8 and int16x8
            need them: at most `CALIBRATION_IMAGES`, evenly spread, set the ranges of the
            activations.
        io: Whether an int8 or int16x8 file takes and gives integers, or float32.
        batch: Images that the model takes at once, where it takes no other number.

    Returns:
        The file's content, the same bytes for the same SavedModel.

    Raises:
        MissingOperatorError: An operation of the model has no builtin operator.
    """
    # from_concrete_functions leaves Keras 3 variables as resources, which calibration cannot read.
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if kind == "sparse":
        # Beside Optimize.DEFAULT it would write files that fail when their tensors are allocated.
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    elif kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in INTEGER:
        assert feeds is not None  # export asks for them
        operators, dtype = INTEGER[kind]
        converter.representative_dataset = _examples(feeds, batch)
        converter.target_spec.supported_ops = [operators]
        if io == "int8":
            converter.inference_input_type = converter.inference_output_type = dtype
    return _convert(converter)


def _examples(feeds: Feeds, batch: int) -> Callable[[], Iterator[Feeds]]:
    fewer = {name: spread(images, CALIBRATION_IMAGES) for name, images in feeds.items()}
    count = min(len(images) for images in fewer.values())

    def examples() -> Iterator[Feeds]:
        for start in range(0, count, batch):
            # The last batch is filled up with the first images.
            places = np.arange(start, start + batch) % count
            yield {name: images[places] for name, images in fewer.items()}

    return examples


def spread(images: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the images, evenly spread over all of them."""
    if len(images) <= most:
        return images
    return images[np.linspace(0, len(images) - 1, most).round().astype(int)]


def _convert(converter: tf.lite.TFLiteConverter) -> bytes:
    try:
        with quiet():
            return converter.convert()
    except ConverterError as error:
        said = str(error)
        missing = sorted(set(_MISSING.findall(said)))
        if not missing and "tensor list" in said:
            missing = ["a loop over a list of tensors"]
        if not missing:
            raise
        places = [place for place in _PLACE.findall(said) if "/" in place]
        raise MissingOperatorError(missing, places) from error
