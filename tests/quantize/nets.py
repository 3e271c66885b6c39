"""Small nets for quantization-aware training, with weights and statistics of no special value."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

NETS: dict[str, Callable[[], keras.Model]] = {}


def net(function: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    def randomized() -> keras.Model:
        keras.utils.set_random_seed(0)
        model = function()
        rng = np.random.default_rng(0)
        for weight in model.weights:
            if weight.name in ("bias", "beta", "moving_mean"):
                weight.assign(rng.normal(0, 0.3, weight.shape))
            elif weight.name == "alpha":
                weight.assign(rng.normal(0.2, 0.3, weight.shape))
            elif weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 2, weight.shape))
        return model

    NETS[function.__name__] = randomized
    return randomized


def examples(model: keras.Model, count: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(count, *x.shape[1:])).astype("float32") for x in model.inputs]


def sequence(*parts: keras.layers.Layer, shape: tuple[int, ...]) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *parts])


@net
def plain() -> keras.Model:
    return sequence(
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(3, name="head"),
        shape=(6, 6, 2),
    )


@net
def mobile() -> keras.Model:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False)(x)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.Conv2D(6, 1, activation="silu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(4, activation="softmax")(x))


@net
def residual() -> keras.Model:
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    x = layers.Activation("relu")(layers.Add()([x, y]))
    x = keras.ops.relu(x + layers.Conv2D(4, 1)(x))
    return keras.Model(image, layers.Dense(3)(keras.ops.mean(x, (1, 2))))


@net
def dense_net() -> keras.Model:
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(2, 3, padding="same", use_bias=False)(y)])
    x = layers.AveragePooling2D(2)(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))


@net
def squeeze() -> keras.Model:
    image = keras.Input((6, 6, 3))
    x = layers.Rescaling(0.5, 1.0)(image)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(2, 1, activation="relu")(s)
    x = layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(s)])
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))


@net
def ends() -> keras.Model:
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 3), name="right")
    shared, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    inner = sequence(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(),
        shape=(6, 6, 3),
    )
    x = layers.Add()([norm(shared(left)), norm(shared(right))])
    z = layers.Flatten()(layers.Concatenate()([inner(x), inner(left)]))
    scores = layers.Dense(3, name="scores")(z)
    sure = layers.Dense(1, activation="sigmoid", name="sure")(z)
    return keras.Model([left, right], [scores, sure])


@net
def growing() -> keras.Model:
    return sequence(
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu"),
        layers.UpSampling2D(interpolation="bilinear"),
        layers.Conv2D(2, 1),
        shape=(4, 4, 3),
    )


@net
def sound() -> keras.Model:
    return sequence(
        layers.Conv1D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dense(5, activation="relu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2),
        shape=(12, 3),
    )


@net
def long_sum() -> keras.Model:
    image = keras.Input((6, 6, 3))
    parts = [layers.Conv2D(4, size, padding="same")(image) for size in (1, 2, 3)]
    x = layers.ReLU()(layers.Add(name="three")(parts))
    x = layers.Subtract()([layers.Multiply()([x, *parts[:2]]), parts[2]])
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@net
def activations() -> keras.Model:
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, activation="gelu")(image)
    x = layers.LeakyReLU(0.15)(layers.BatchNormalization()(layers.Conv2D(6, 1)(x)))
    x = layers.Conv2D(6, 1, activation="hard_swish")(x)
    x = keras.ops.gelu(layers.Conv2D(6, 1)(x)) + keras.ops.leaky_relu(x)
    s = layers.Dense(6, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, s])
    s = keras.ops.relu6(layers.Dense(6)(x) + 3.0) * (1 / 6)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(1.0 - x * s / 2)))


@net
def separable() -> keras.Model:
    image = keras.Input((6, 6, 3))
    x = layers.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.SeparableConv2D(5, 3, padding="same", activation="relu")(x)
    x = layers.Average()([x, y, layers.Maximum()([x, y])])
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@net
def causal() -> keras.Model:
    return sequence(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.DepthwiseConv1D(3, padding="same"),
        layers.SeparableConv1D(4, 3, activation="relu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2),
        shape=(12, 3),
    )


@net
def slopes() -> keras.Model:
    return sequence(
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Conv2D(3, 1),
        layers.PReLU(),
        layers.Flatten(),
        layers.Dense(3),
        shape=(6, 6, 3),
    )


@net
def growing_sound() -> keras.Model:
    return sequence(
        layers.Conv1D(4, 3, activation="relu"),
        layers.Conv1DTranspose(5, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv1DTranspose(3, 4, activation="relu"),
        layers.Conv1D(2, 1),
        shape=(8, 3),
    )
