"""The ResNets for CIFAR-10 of He et al. 2016 ("Deep residual learning"), section 4.2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras

from tfprune.zoo._catalogue import checked
from tfprune.zoo._parts import BATCHNORM_MOMENTUM, image_input, layer_seeds, logits


def resnet(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    depth: int,
    width: int = 16,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    name: str = "resnet",
) -> keras.Model:
    """Three stages of residual blocks of two 3x3 convolutions, then an average and the logits.

    Where a stage starts with more filters, the shortcut is the paper's option B, a 1x1
    convolution with BatchNorm. The paper's CIFAR nets use option A, which pads with zero
    channels and has no parameters; Keras has no layer that pads channels, and a raw op there
    would keep every stage's channels from being pruned. It adds 2,752 trainable parameters.

    For 32x32x3 images and 10 classes, trainable parameters: 272,474 (ResNet-20), 466,906 (32),
    661,338 (44), 855,770 (56), 1,730,714 (110).

    Args:
        input_shape: (height, width, channels).
        classes: How many logits.
        depth: Layers with weights along the main path, 6n + 2.
        width: Filters of the first stage; they double each stage.
        mean: Grey level of each channel to normalise with.
        std: Its standard deviation.
        seed: Fixes the initial weights.
        name: The model's name.

    Returns:
        A model from float32 pixels 0 to 255 to logits.
    """
    width = checked("width", width)
    seeds = layer_seeds(seed)
    inputs, x = image_input(input_shape, mean, std)
    x = _conv_bn(x, width, 3, 1, "stem_conv", seeds)
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage in (1, 2, 3):
        filters = width * 2 ** (stage - 1)
        for block in range(1, (depth - 2) // 6 + 1):
            shrink = stage > 1 and block == 1
            x = _block(x, filters, 2 if shrink else 1, f"stage{stage}_block{block}", seeds)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    outputs = logits(x, classes, keras.initializers.HeNormal(next(seeds)))
    return keras.Model(inputs, outputs, name=name)


def _block(
    x: keras.KerasTensor, filters: int, strides: int, prefix: str, seeds: Iterator[int]
) -> keras.KerasTensor:
    shortcut = x
    if strides > 1:
        shortcut = _conv_bn(x, filters, 1, strides, f"{prefix}_shortcut_conv", seeds)
    x = _conv_bn(x, filters, 3, strides, f"{prefix}_conv1", seeds)
    x = keras.layers.ReLU(name=f"{prefix}_relu1")(x)
    x = _conv_bn(x, filters, 3, 1, f"{prefix}_conv2", seeds)
    x = keras.layers.Add(name=f"{prefix}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{prefix}_relu2")(x)


def _conv_bn(
    x: keras.KerasTensor, filters: int, size: int, strides: int, name: str, seeds: Iterator[int]
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(next(seeds)),
        name=name,
    )(x)
    return keras.layers.BatchNormalization(
        momentum=BATCHNORM_MOMENTUM, name=name.replace("conv", "bn")
    )(x)
