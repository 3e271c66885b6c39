"""The nets on which devices are compared: small ones, as microcontrollers and NPUs run them.

Their weights are random: cycles, memory and times depend on how many there are and on zeros among
them, not on what a net learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from tfprune import zoo


def _normed(x: Any, layer: layers.Layer, *, active: bool = True) -> Any:
    x = layers.BatchNormalization()(layer(x))
    return layers.ReLU()(x) if active else x


def resnet8() -> keras.Model:
    """The image classifier of MLPerf Tiny."""
    inputs = keras.Input((32, 32, 3))
    x = _normed(inputs, layers.Conv2D(16, 3, padding="same", use_bias=False))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = _normed(x, layers.Conv2D(filters, 3, strides, padding="same", use_bias=False))
        y = _normed(y, layers.Conv2D(filters, 3, padding="same", use_bias=False), active=False)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="resnet8")


def ds_cnn() -> keras.Model:
    """The keyword spotter of MLPerf Tiny."""
    inputs = keras.Input((49, 10, 1))
    x = _normed(inputs, layers.Conv2D(64, (10, 4), 2, padding="same", use_bias=False))
    for _ in range(4):
        x = _normed(x, layers.DepthwiseConv2D(3, padding="same", use_bias=False))
        x = _normed(x, layers.Conv2D(64, 1, use_bias=False))
    outputs = layers.Dense(12)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="ds_cnn")


NETS: dict[str, Callable[[], keras.Model]] = {
    "ResNet-8": resnet8,
    "DS-CNN": ds_cnn,
    "VGG, width 16": lambda: zoo.build("vgg", (32, 32, 3), 10, width=16, blocks=[2, 2, 2]),
    "MobileNetV1 0.5, 96 px": lambda: keras.applications.MobileNet(
        (96, 96, 3), alpha=0.5, weights=None, classes=2
    ),
    # The same net with the padding that XNNPACK can run sparse.
    "MobileNetV1 0.5, 96 px, of the zoo": lambda: zoo.build(
        "mobilenetv1", (96, 96, 3), 2, width=16
    ),
    "MobileNetV2 0.35, 96 px": lambda: keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, weights=None, classes=2
    ),
}
