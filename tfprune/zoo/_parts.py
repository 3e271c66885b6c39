"""What all the families share: checked numbers, seeds, the normalising input, the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.zoo._catalogue import positive

BATCHNORM_MOMENTUM = 0.9
"""As in the papers' own code. Keras' 0.99 lags behind for hundreds of steps, which a short training
on a small set does not have."""


def layer_seeds(seed: int) -> Iterator[int]:
    """Endless seeds, one a layer, that depend on `seed` and the layer's position alone.

    Args:
        seed: 0 or more.

    Yields:
        Seeds for Keras' initializers, 0 to 2**31 - 1.
    """
    if seed < 0:
        raise UsageError(f"seed={seed} must be 0 or more")
    for index in count():
        yield int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)


def pixels(input_shape: tuple[int, int, int]) -> keras.KerasTensor:
    """The input of pixels 0 to 255, "image".

    Args:
        input_shape: (height, width, channels).

    Raises:
        UsageError: On an impossible shape.
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
    """The input of pixels 0 to 255, and the same normalised.

    Args:
        input_shape: (height, width, channels).
        mean: Grey level of each channel, or None for a range of -1..1.
        std: Its deviation; a constant channel (0) is shifted and not scaled.

    Returns:
        The input tensor and the output of the layer "normalize".

    Raises:
        UsageError: On an impossible shape, or figures that do not match the channels.
    """
    inputs = pixels(input_shape)
    if mean is None and std is None:
        return inputs, keras.layers.Rescaling(1 / 127.5, -1.0, name="normalize")(inputs)
    channels = input_shape[-1]
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise UsageError(f"mean and std must both be given, with {channels} figures, one a channel")
    # Plain floats: Keras writes them into the model's JSON as they are.
    scale = [1.0 / float(s) if s else 1.0 for s in std]
    offset = [-float(m) * s for m, s in zip(mean, scale, strict=True)]
    return inputs, keras.layers.Rescaling(scale, offset, name="normalize")(inputs)


def logits(x: keras.KerasTensor, classes: int, initializer: keras.Initializer) -> keras.KerasTensor:
    """The output layer, without a softmax, which the loss applies."""
    positive("classes", classes)
    return keras.layers.Dense(classes, kernel_initializer=initializer, name="logits")(x)
