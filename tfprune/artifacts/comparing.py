"""Whether a file computes what its Keras model computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.formats import Feeds, Format
from tfprune.formats.signature import tensor_names
from tfprune.measure.agreement import Agreement, agreement
from tfprune.model.graph import output_activation

# An int8 file is refused as broken only when it misses both: an untrained model's near ties
# change their order with a tiny difference, and one outlier means little while the rest holds.
QUANTIZED_LEAST_AGREEMENT = 0.5
QUANTIZED_TOLERANCE = 0.1
_QUANTIZED_ADVICE = (
    "check the representative data; an input has 256 values in int8, too few for columns of unlike "
    "ranges and for row numbers in floats: rescale them, or take tflite-int16x8 or tflite-dynamic"
)
_SHARES = {
    "classes": "the same class for {:.1%} of the examples",
    "sides": "the same side of 0.5 for {:.1%} of the outputs",
    "values": "{:.1%} of the outputs' variance explained",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a file gives beside what its Keras model gives.

    Attributes:
        lowest: That of the output whose share is lowest.
        output: The name of this output; None where there is only one.
        largest_difference: The largest of any output.
    """

    lowest: Agreement
    output: str | None
    largest_difference: float


def compare(
    form: Format,
    name: str,
    outputs: Feeds,
    expected: Feeds,
    tolerance: float,
    sigmoids: Collection[str] = (),
) -> Comparison:
    """Compares all outputs, each with the range that the Keras model's has.

    Args:
        form: The format.
        name: Its name.
        outputs: What the file gave, by output; a single one may have any name.
        expected: What the Keras model gave on the same examples.
        tolerance: Largest difference of an exact format, as a share of an output's range.
        sigmoids: Names of the outputs that a sigmoid gives; see `sigmoid_outputs`.

    Raises:
        TfpruneError: They do not agree.
    """
    if len(outputs) == len(expected) == 1:
        outputs = dict(zip(expected, outputs.values(), strict=True))
    if set(outputs) != set(expected):
        raise TfpruneError(
            f"{name} gives outputs {', '.join(outputs)} instead of {', '.join(expected)}: "
            "leave this format out, and report the model's layers"
        )
    found = {}
    for key, wanted in expected.items():
        of_which = f" in output {key}" if len(expected) > 1 else ""
        found[key] = _one(
            form, f"{name}{of_which}", outputs[key], wanted, tolerance, key in sigmoids
        )
    lowest = min(found, key=lambda key: found[key].share)
    return Comparison(
        lowest=found[lowest],
        output=lowest if len(found) > 1 else None,
        largest_difference=max(each.largest_difference for each in found.values()),
    )


def sigmoid_outputs(model: keras.Model) -> set[str]:
    """The outputs of a model that a sigmoid gives, by the names that exported files give them.

    Args:
        model: A built Sequential or Functional model.
    """
    names = tensor_names(model)[1]
    return {
        name
        for name, y in zip(names, model.outputs, strict=True)
        if output_activation(y) == "sigmoid"
    }


def _one(
    form: Format,
    name: str,
    outputs: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
    sigmoid: bool,
) -> Agreement:
    if outputs.shape != expected.shape:
        raise TfpruneError(
            f"{name} gives outputs of shape {outputs.shape[1:]} instead of "
            f"{expected.shape[1:]}: leave this format out, and report the model's layers"
        )
    found = agreement(outputs, expected, sigmoid=sigmoid)
    # A comparison with NaN is never true: say what passes, and refuse the rest.
    if form.exact:
        passes = found.off <= tolerance
    else:
        holds = np.isfinite(found.off) and found.share >= QUANTIZED_LEAST_AGREEMENT
        # An untrained net's probabilities hardly differ: a step of int8 may be their whole range.
        off = found.largest_difference if found.bounded else found.off
        passes = off <= QUANTIZED_TOLERANCE or holds
    if not passes:
        share = _SHARES[found.compared_as].format(found.share)
        raise TfpruneError(
            f"{name} does not agree with the model ({share}, "
            f"largest difference {found.off:.2%} of the outputs' range): "
            + ("leave this format out" if form.exact else _QUANTIZED_ADVICE)
        )
    return found
