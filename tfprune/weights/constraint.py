"""The mask as a Keras constraint: the optimizer itself keeps dead weights at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


class MaskConstraint(keras.constraints.Constraint):
    """Holds the dead entries of a weight at exactly zero, after every update of any optimizer.

    It is set on the variable (`variable.constraint`), not on its layer, so that a saved model
    never carries it.

    Args:
        shape: shape of the weight.
        inner: the constraint the weight had before. It is applied first, and the mask after it.

    Attributes:
        mask: bool variable of that shape, True where a weight lives; all of them at first. A
            variable, since the compiled step would bake an array in as a constant.
    """

    def __init__(self, shape: tuple[int, ...], inner: Callable[[Any], Any] | None = None) -> None:
        self.inner = inner
        self.mask = keras.Variable(np.ones(shape, bool), dtype="bool", trainable=False, name="mask")

    def __call__(self, w: Any) -> Any:
        """Applies the inner constraint, then the mask."""
        return self.project(w if self.inner is None else self.inner(w))

    def project(self, w: Any) -> Any:
        """Sets the dead entries of a weight to +0 and leaves the others bit for bit."""
        w = ops.convert_to_tensor(w)
        # Not a product: NaN * 0 is NaN, and -1 * 0 is -0.
        return ops.where(self.mask, w, ops.zeros_like(w))
