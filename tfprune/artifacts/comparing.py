"""Whether a file computes what its Keras model computes."""

from __future__ import annotations

import numpy as np

from tfprune.artifacts.formats import Format
from tfprune.artifacts.tflite import Feeds
from tfprune.errors import TfpruneError
from tfprune.measure.accuracy import agreement

# An int8 file is refused as broken only when it misses both: an untrained model's near ties
# change their order with a tiny difference, and one outlier means little while the order holds.
QUANTIZED_LEAST_AGREEMENT = 0.5
QUANTIZED_TOLERANCE = 0.1


def compare(
    form: Format, name: str, outputs: Feeds, expected: Feeds, tolerance: float
) -> tuple[float, float]:
    """Compares all outputs, each with the range that the Keras model's has.

    Args:
        form: The format.
        name: Its name.
        outputs: What the file gave, by output; a single one may have any name.
        expected: What the Keras model gave on the same images.
        tolerance: Largest difference of an exact format, as a share of an output's range.

    Returns:
        The share of images whose largest output is the same, 0 to 1, the lowest of all outputs;
        and the largest absolute difference.

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
    pairs = [_one(form, name, outputs[key], expected[key], tolerance) for key in expected]
    return min(share for share, _ in pairs), max(difference for _, difference in pairs)


def _one(
    form: Format, name: str, outputs: np.ndarray, expected: np.ndarray, tolerance: float
) -> tuple[float, float]:
    if outputs.shape != expected.shape:
        raise TfpruneError(
            f"{name} gives outputs of shape {outputs.shape[1:]} instead of "
            f"{expected.shape[1:]}: leave this format out, and report the model's layers"
        )
    share, difference = agreement(outputs, expected)
    extent = float(np.ptp(expected)) or float(np.abs(expected).max()) or 1.0
    off = difference / extent
    # A comparison with NaN is never true: say what passes, and refuse the rest.
    if form.exact:
        passes = off <= tolerance
    else:
        order_holds = np.isfinite(off) and share >= QUANTIZED_LEAST_AGREEMENT
        passes = off <= QUANTIZED_TOLERANCE or order_holds
    if not passes:
        raise TfpruneError(
            f"{name} does not agree with the model (same class for {share:.1%} of images, "
            f"largest difference {off:.2%} of the outputs' range): "
            + ("leave this format out" if form.exact else "check the representative data")
        )
    return share, difference
