"""CNNs of papers: Conv-2, Conv-4, Conv-6, VGG with BatchNorm, ResNets for CIFAR-10, MobileNetV1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras

from tfprune.zoo.catalogue import check_option
from tfprune.zoo.parts import BATCHNORM_MOMENTUM, image_input, layer_seeds, logits


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
    """Builds Conv-2, Conv-4 or Conv-6, which have no BatchNorm and a large dense part.

    Example:
        ```python
        model = conv((32, 32, 3), 10, modules=1, width=8)
        model.output_shape  # (None, 10)
        ```

    Each module has two 3x3 convolutions and a 2x2 max-pool; two dense layers and the logits follow.
    Kernels are initialised Glorot normal. For 32x32x3 images, 10 classes and width 64, the kernels
    have 4,300,992 (Conv-2), 2,425,024 (Conv-4) and 2,261,184 (Conv-6) weights, 38,592, 259,776 and
    1,144,512 of them in convolutions; biases are not counted here. The paper prints 4.3M, 2.4M and
    1.7M, but its layout of Conv-6 has 2.26M.

    Args:
        input_shape: (height, width, channels); each module halves height and width.
        classes: number of logits.
        modules: 1, 2 or 3 for Conv-2, Conv-4 and Conv-6.
        width: filters of the first module. Each module has twice the filters of the one before; the
            dense layers have 4 * width units.
        mean: mean of each channel, 0 to 255, to normalise with.
        std: standard deviation of each channel.
        seed: fixes the initial weights.
        name: the name of the model.

    Returns:
        A model that maps float32 pixels (n, height, width, channels), 0 to 255, to (n, classes)
        logits.

    Source:
        Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2,
        https://arxiv.org/abs/1803.03635.
    """
    width = check_option("width", width)
    seeds = layer_seeds(seed)

    def initializer() -> keras.Initializer:
        return keras.initializers.GlorotNormal(next(seeds))

    inputs, x = image_input(input_shape, mean, std)
    for module in range(1, modules + 1):
        for layer in (1, 2):
            x = keras.layers.Conv2D(
                width * 2 ** (module - 1),
                3,
                padding="same",
                activation="relu",
                kernel_initializer=initializer(),
                name=f"block{module}_conv{layer}",
            )(x)
        if min(x.shape[1:3]) >= 2:
            x = keras.layers.MaxPooling2D(name=f"block{module}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for layer in (1, 2):
        x = keras.layers.Dense(
            4 * width, activation="relu", kernel_initializer=initializer(), name=f"dense{layer}"
        )(x)
    return keras.Model(inputs, logits(x, classes, initializer()), name=name)


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
    """Builds a VGG with BatchNorm and global average pooling.

    Example:
        ```python
        model = vgg((8, 8, 1), 10, width=4, blocks=(1, 1))
        vgg16 = vgg((32, 32, 3), 10, width=64, blocks=(2, 2, 3, 3, 3))
        ```

    Each block has 3x3 convolutions with BatchNorm and ReLU, and a 2x2 max-pool. Convolutions have
    no bias, since BatchNorm has a beta. One dense layer returns the logits; Li et al. 2017 have
    two. For 32x32x3 images and 10 classes, the default has 72,954 trainable parameters. VGG-16,
    which papers use on CIFAR-10, has 14,724,042; with biases before BatchNorm, theirs has
    14,728,266.

    Args:
        input_shape: (height, width, channels).
        classes: number of logits.
        width: filters of the first block; each block has twice the filters of the one before, up to
            8 * width.
        blocks: the number of convolutions in each block.
        mean: mean of each channel, 0 to 255, to normalise with.
        std: standard deviation of each channel.
        seed: fixes the initial weights.
        name: the name of the model.

    Returns:
        A model that maps float32 pixels (n, height, width, channels), 0 to 255, to (n, classes)
        logits.

    Source:
        Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556.
    """
    width, blocks = check_option("width", width), check_option("blocks", blocks)
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
        # Small images, such as 8x8 digits, shrink to one pixel before the last block.
        if min(x.shape[1:3]) >= 2:
            x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    outputs = logits(x, classes, keras.initializers.HeNormal(next(seeds)))
    return keras.Model(inputs, outputs, name=name)


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
    """Builds a ResNet for CIFAR-10: three stages of residual blocks with two 3x3 convolutions.

    Example:
        ```python
        model = resnet((32, 32, 3), 10, depth=20, width=4)
        model.output_shape  # (None, 10)
        ```

    If a stage starts with more filters, the shortcut is the paper's option B, a 1x1 convolution
    with BatchNorm. The paper's nets for CIFAR-10 use option A, which pads with zero channels and
    has no parameters. Keras has no layer that pads channels, and a raw operation would freeze the
    channels of all stages. Option B adds 2,752 trainable parameters.

    For 32x32x3 images and 10 classes, the nets have 272,474 (ResNet-20), 466,906 (32), 661,338
    (44), 855,770 (56) and 1,730,714 (110) trainable parameters.

    Args:
        input_shape: (height, width, channels).
        classes: number of logits.
        depth: layers with weights along the main path, 6n + 2.
        width: filters of the first stage; each stage has twice the filters of the one before.
        mean: mean of each channel, 0 to 255, to normalise with.
        std: standard deviation of each channel.
        seed: fixes the initial weights.
        name: the name of the model.

    Returns:
        A model that maps float32 pixels (n, height, width, channels), 0 to 255, to (n, classes)
        logits.

    Source:
        He et al. 2016, Deep Residual Learning, section 4.2, https://arxiv.org/abs/1512.03385.
    """
    width = check_option("width", width)
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


# Filters of each block as a multiple of the stem's, and whether the block halves the image.
_MOBILENET_BLOCKS = (
    (2, False),
    (4, True),
    (4, False),
    (8, True),
    (8, False),
    (16, True),
    *[(16, False)] * 5,
    (32, True),
    (32, False),
)


def mobilenet(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    name: str = "mobilenetv1",
) -> keras.Model:
    """Builds MobileNetV1 in the form that XNNPACK can run sparse.

    Example:
        ```python
        model = mobilenet((32, 32, 3), 10, width=8)
        model.output_shape  # (None, 10)
        ```

    Where the image is halved, it is padded by one pixel on all sides, in place of "same", which
    pads odd and even sizes in different ways; the pooling keeps its dimensions. With 3 input
    channels, all 1x1 convolutions can run sparse. For 224x224x3 images, 1,000 classes and width 32,
    the net has 4,231,976 trainable parameters.

    Args:
        input_shape: (height, width, channels); the net divides height and width by 32.
        classes: number of logits.
        width: filters of the first convolution; the paper's width multiplier is width / 32.
        mean: mean of each channel, 0 to 255, to normalise with.
        std: standard deviation of each channel.
        seed: fixes the initial weights.
        name: the name of the model.

    Returns:
        A model that maps float32 pixels (n, height, width, channels), 0 to 255, to (n, classes)
        logits.

    Source:
        Howard et al. 2017, MobileNets, https://arxiv.org/abs/1704.04861, table 1.
    """
    width = check_option("width", width)
    seeds = layer_seeds(seed)
    inputs, x = image_input(input_shape, mean, std)
    x = keras.layers.ZeroPadding2D(1, name="stem_pad")(x)
    x = _bn_relu6(
        keras.layers.Conv2D(
            width,
            3,
            2,
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(next(seeds)),
            name="stem_conv",
        )(x),
        "stem",
    )
    for number, (factor, halves) in enumerate(_MOBILENET_BLOCKS, start=1):
        prefix = f"block{number}"
        if halves:
            x = keras.layers.ZeroPadding2D(1, name=f"{prefix}_pad")(x)
        deep = keras.layers.DepthwiseConv2D(
            3,
            2 if halves else 1,
            padding="valid" if halves else "same",
            use_bias=False,
            depthwise_initializer=keras.initializers.HeNormal(next(seeds)),
            name=f"{prefix}_depthwise",
        )
        x = _bn_relu6(deep(x), f"{prefix}_depthwise")
        across = keras.layers.Conv2D(
            factor * width,
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(next(seeds)),
            name=f"{prefix}_conv",
        )
        x = _bn_relu6(across(x), prefix)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="global_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    outputs = logits(x, classes, keras.initializers.HeNormal(next(seeds)))
    return keras.Model(inputs, outputs, name=name)


def _bn_relu6(x: keras.KerasTensor, prefix: str) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(momentum=BATCHNORM_MOMENTUM, name=f"{prefix}_bn")(x)
    return keras.layers.ReLU(6, name=f"{prefix}_relu")(x)


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
