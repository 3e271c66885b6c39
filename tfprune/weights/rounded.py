"""Weights rounded to few values, so that a compressed file comes near to the entropy of those."""

from __future__ import annotations

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model import cloning
from tfprune.weights.patterns import Axes
from tfprune.weights.select import Picks, kernels

MOST_BITS = 8


def rounded(
    model: keras.Model, bits: int, *, include: Picks = None, exclude: Picks = None
) -> keras.Model:
    """Rounds each weight to one of `2^bits - 1` evenly spaced values of its output channel.

    The values are symmetric about zero up to the channel's largest magnitude, as TFLite's int8
    weights are (Jacob et al. 2018, arXiv:1712.05877), so an int8 export keeps them apart as few
    integers. Even steps followed by an entropy code are close to the best that any choice of
    values can do for the same error (Gish & Pierce 1968), clusters found by k-means included. The
    tensors keep their shapes and dtypes: what shrinks is the file once it is compressed.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        bits: of one weight, 2 to 8.
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.

    Returns:
        A new model. What is zero stays zero, and what is less than half a step becomes zero.

    Raises:
        UsageError: bits are out of range, or a glob matches no layer with a kernel.
    """
    if not 2 <= bits <= MOST_BITS:
        raise UsageError(f"bits={bits} is out of range: give 2 to {MOST_BITS}")
    twin = cloning.copy(model)
    for kernel in kernels(twin, include, exclude):
        value = keras.ops.convert_to_numpy(kernel.variable)
        kernel.variable.assign(_rounded(value, kernel.axes, 2 ** (bits - 1) - 1))
    return twin


def _rounded(value: np.ndarray, axes: Axes, levels: int) -> np.ndarray:
    # A depthwise kernel has an output for each pair; of an embedding nothing is left to scale by.
    own = axes.outputs if axes.summed else (*axes.inputs, *axes.outputs)
    across = tuple(axis for axis in range(value.ndim) if axis not in own) or None
    largest = np.abs(value).max(axis=across, keepdims=True)
    # What is zero throughout stays so.
    step = np.where(largest > 0, largest, 1) / levels
    return np.rint(value / step) * step
