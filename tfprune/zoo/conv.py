"""Conv-2, Conv-4 and Conv-6 of the lottery-ticket paper (Frankle & Carbin 2019, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfprune.zoo._catalogue import checked
from tfprune.zoo._parts import image_input, layer_seeds, logits


def conv(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    modules: int,
    width: int = 64,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    name: str = "conv",
) -> keras.Model:
    """VGG-like nets without BatchNorm, with a large dense part.

    Each module is two 3x3 convolutions and a 2x2 max-pool; two dense layers and the logits
    follow. Kernels start Glorot normal. For 32x32x3 images, 10 classes and width 64, the kernels
    hold 4,300,992 (Conv-2), 2,425,024 (Conv-4) and 2,261,184 (Conv-6) weights, of which 38,592,
    259,776 and 1,144,512 in convolutions; biases come on top. The paper prints 4.3M, 2.4M and
    1.7M; the layout it describes gives 2.26M for the last.

    Args:
        input_shape: (height, width, channels); each module halves height and width.
        classes: How many logits.
        modules: 1, 2 or 3 for Conv-2, -4 and -6.
        width: Filters of the first module; they double each module, and the dense layers have
            4 times as many units.
        mean: Grey level of each channel to normalise with.
        std: Its standard deviation.
        seed: Fixes the initial weights.
        name: The model's name.

    Returns:
        A model from float32 pixels 0 to 255 to logits.
    """
    width = checked("width", width)
    seeds = layer_seeds(seed)

    def start() -> keras.Initializer:
        return keras.initializers.GlorotNormal(next(seeds))

    inputs, x = image_input(input_shape, mean, std)
    for module in range(1, modules + 1):
        for layer in (1, 2):
            x = keras.layers.Conv2D(
                width * 2 ** (module - 1),
                3,
                padding="same",
                activation="relu",
                kernel_initializer=start(),
                name=f"block{module}_conv{layer}",
            )(x)
        if min(x.shape[1:3]) >= 2:
            x = keras.layers.MaxPooling2D(name=f"block{module}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for layer in (1, 2):
        x = keras.layers.Dense(
            4 * width, activation="relu", kernel_initializer=start(), name=f"dense{layer}"
        )(x)
    return keras.Model(inputs, logits(x, classes, start()), name=name)
