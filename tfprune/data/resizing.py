"""Images in another size."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def resize(images: Any, size: tuple[int, int]) -> tf.Tensor:
    """Resizes uint8 images bilinearly; antialiasing uses all pixels when images shrink.

    Example:
        ```python
        resize(np.zeros((10, 8, 8, 3), np.uint8), (4, 4)).shape  # (10, 4, 4, 3)
        ```

    Args:
        images: uint8 (n, height, width, channels) or (height, width, channels).
        size: (height, width).

    Returns:
        uint8, rounded to the nearest.
    """
    return tf.cast(tf.round(tf.image.resize(images, size, antialias=True)), tf.uint8)
