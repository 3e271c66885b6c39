"""VGG with BatchNorm and global average pooling (Simonyan & Zisserman 2015), of any size."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfprune.zoo._catalogue import checked
from tfprune.zoo._parts import BATCHNORM_MOMENTUM, image_input, layer_seeds, logits


def vgg(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: int = 16,
    blocks: Sequence[int] = (2, 2, 2),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    name: str = "vgg",
) -> keras.Model:
    """Blocks of 3x3 convolutions, each with BatchNorm and ReLU, and a 2x2 max-pool after each.

    Convolutions have no bias, since BatchNorm's beta follows; one dense layer gives the logits,
    where Li et al. 2017 have two. For 32x32x3 images and 10 classes the default has 72,954
    trainable parameters, and `width=64, blocks=(2, 2, 3, 3, 3)`, the VGG-16 that papers use on
    CIFAR-10, 14,724,042; with the biases that BatchNorm makes superfluous, theirs has 14,728,266.

    Args:
        input_shape: (height, width, channels).
        classes: How many logits.
        width: Filters of the first block; they double each block, up to 8 times as many.
        blocks: Convolutions in each block.
        mean: Grey level of each channel to normalise with.
        std: Its standard deviation.
        seed: Fixes the initial weights.
        name: The model's name.

    Returns:
        A model from float32 pixels 0 to 255 to logits.
    """
    width, blocks = checked("width", width), checked("blocks", blocks)
    seeds = layer_seeds(seed)
    inputs, x = image_input(input_shape, mean, std)
    for block, convolutions in enumerate(blocks, start=1):
        for layer in range(1, convolutions + 1):
            x = keras.layers.Conv2D(
                width * min(2 ** (block - 1), 8),
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(next(seeds)),
                name=f"block{block}_conv{layer}",
            )(x)
            x = keras.layers.BatchNormalization(
                momentum=BATCHNORM_MOMENTUM, name=f"block{block}_bn{layer}"
            )(x)
            x = keras.layers.ReLU(name=f"block{block}_relu{layer}")(x)
        # Small images, such as 8x8 digits, are down to one pixel before the blocks end.
        if min(x.shape[1:3]) >= 2:
            x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    outputs = logits(x, classes, keras.initializers.HeNormal(next(seeds)))
    return keras.Model(inputs, outputs, name=name)
