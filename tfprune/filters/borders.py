"""What a padded convolution hears less of a constant at the borders of its image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np


def border_error(layer: Any, sizes: Sequence[int], shifts: np.ndarray) -> float:
    """The most that any number of a convolution's output lacks of what the whole kernel brings.

    Padding is zero whatever the image is. So where a constant comes in, the taps of the kernel that
    lie outside bring nothing.

    Args:
        layer: a Conv1D, Conv2D or Conv3D.
        sizes: of the image, without batch and channels.
        shifts: float (*kernel_size, filters); what each tap brings where it lies on the image.

    Returns:
        The largest absolute sum of the taps outside, over all positions and filters; 0 without
        padding.
    """
    if layer.padding == "valid":
        return 0.0
    along = zip(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    met = [_met(*each, causal=layer.padding == "causal") for each in along]
    return max(float(np.abs(missed).max()) for missed in _missed(met, shifts))


def _missed(met: Sequence[np.ndarray], shifts: np.ndarray) -> Iterator[np.ndarray]:
    """For each kind of position, float (filters,): what the taps outside would bring."""
    for rows in product(*met):
        inside = rows[0]
        for row in rows[1:]:
            inside = np.logical_and.outer(inside, row)
        yield shifts[~inside].sum(axis=0)


def _met(size: int, width: int, stride: int, dilation: int, *, causal: bool) -> np.ndarray:
    """Bool (kinds, width): which of a kernel's taps lie on the image, for each kind of position.

    Args:
        size: of the image, along one axis.
        width: of the kernel.
        stride: from one position to the next.
        dilation: from one tap to the next.
        causal: whether all padding comes before the image.
    """
    positions = -(-size // stride)
    reach = (width - 1) * dilation
    before = reach if causal else max((positions - 1) * stride + reach + 1 - size, 0) // 2
    places = np.arange(positions)[:, None] * stride + np.arange(width) * dilation - before
    return np.unique((places >= 0) & (places < size), axis=0)
