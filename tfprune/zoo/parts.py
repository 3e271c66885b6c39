"""Parts that all models of the zoo share: seeds, the input with its normalisation, the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.zoo.catalogue import positive

BATCHNORM_MOMENTUM = 0.9
"""The momentum in the code of the papers. With Keras' default of 0.99, the statistics need hundreds
of steps, more than a short training on a small data set has."""


def layer_seeds(seed: int) -> Iterator[int]:
    """Seeds for the layers of a model, which depend only on `seed` and the layer's position.

    Example:
        ```python
        seeds = layer_seeds(0)
        keras.initializers.HeNormal(next(seeds))
        ```

    Args:
        seed: 0 or more.

    Yields:
        Seeds for Keras' initializers, 0 to 2**31 - 1, without end.

    Raises:
        UsageError: the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"seed={seed} must be 0 or more")
    for index in count():
        yield int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)


def pixels(input_shape: tuple[int, int, int]) -> keras.KerasTensor:
    """The input "image" for pixels 0 to 255.

    Example:
        ```python
        pixels((32, 32, 3)).shape  # (None, 32, 32, 3)
        ```

    Args:
        input_shape: (height, width, channels).

    Raises:
        UsageError: the shape is impossible.
    """
    if len(input_shape) != 3:
        raise UsageError(f"input_shape={input_shape} must be (height, width, channels)")
    for size in input_shape:
        positive("a size in input_shape", size)
    return keras.Input(input_shape, name="image")


def image_input(
    input_shape: tuple[int, int, int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input for pixels 0 to 255, and the normalised pixels.

    Example:
        ```python
        inputs, x = image_input((32, 32, 3), mean=[125, 123, 114], std=[63, 62, 67])
        ```

    Args:
        input_shape: (height, width, channels).
        mean: mean of each channel, or None to scale pixels to -1..1.
        std: standard deviation of each channel; a channel with 0 is shifted and not scaled.

    Returns:
        The input tensor and the output of the layer "normalize".

    Raises:
        UsageError: the shape is impossible, or mean and std do not match the channels.
    """
    inputs = pixels(input_shape)
    if mean is None and std is None:
        return inputs, keras.layers.Rescaling(1 / 127.5, -1.0, name="normalize")(inputs)
    channels = input_shape[-1]
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise UsageError(
            f"mean and std must both be given, with {channels} figures, one for each channel"
        )
    # Keras writes these numbers into JSON, which needs Python floats.
    scale = [1.0 / float(s) if s else 1.0 for s in std]
    offset = [-float(m) * s for m, s in zip(mean, scale, strict=True)]
    return inputs, keras.layers.Rescaling(scale, offset, name="normalize")(inputs)


def logits(x: keras.KerasTensor, classes: int, initializer: keras.Initializer) -> keras.KerasTensor:
    """The output layer "logits"; the loss applies the softmax.

    Example:
        ```python
        logits(x, 10, keras.initializers.HeNormal(seed=0)).shape  # (None, 10)
        ```

    Raises:
        UsageError: `classes` is not a whole number of 1 or more.
    """
    positive("classes", classes)
    return keras.layers.Dense(classes, kernel_initializer=initializer, name="logits")(x)
