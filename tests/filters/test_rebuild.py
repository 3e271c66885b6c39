"""What a rebuilt model keeps: its class, its own objects, how it is compiled."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.model.cloning import copy

from .harness import assert_same, examples, outputs, randomised
from .models import conv, head, image


def mlp(*middle: layers.Layer) -> list[layers.Layer]:
    return [keras.Input((4,)), layers.Dense(6, name="a"), *middle, layers.Dense(2)]


def test_weights_are_slices_of_the_original() -> None:
    model = randomised(keras.Sequential(mlp()))
    slim = tfprune.remove_filters(model, {"a": [0, 4]})
    kernel, bias, reader, last = model.get_weights()
    keep = [1, 2, 3, 5]
    assert_same(slim.get_weights(), [kernel[:, keep], bias[keep], reader[keep], last])


def test_layers_of_ones_own_need_no_registration() -> None:
    class Local(layers.Layer):
        def call(self, x: object) -> object:
            return x * 2

    class LocalPenalty(keras.regularizers.Regularizer):
        def __call__(self, x: object) -> object:
            return keras.ops.sum(x)

        def get_config(self) -> dict:
            return {}

    offset = 3.0

    def local(x: object) -> object:
        return keras.ops.tanh(x) + offset

    parts = [
        layers.Dense(5, kernel_regularizer=LocalPenalty()),
        Local(),
        layers.Dense(5, activation=local),
        layers.Lambda(local),
        layers.Lambda(lambda x: x - offset),
    ]
    model = randomised(keras.Sequential(mlp(*parts)))
    inputs = examples(model)
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))
    assert_same(outputs(tfprune.remove_filters(model, {}), inputs), outputs(model, inputs))
    slim = tfprune.slim(model, filters=0.5)
    assert slim.get_layer("a").units == 3
    assert isinstance(slim.layers[2], Local)


def test_compiled_like_the_original() -> None:
    def own_loss(y: object, z: object) -> object:
        return keras.ops.mean(keras.ops.square(y - z))

    model = randomised(keras.Sequential(mlp()))
    optimizer = keras.optimizers.SGD(0.25, momentum=0.5)
    metric = keras.metrics.MeanAbsoluteError(name="mine")
    model.compile(optimizer, own_loss, metrics=[metric])
    slim = tfprune.slim(model, filters=0.5)
    assert slim.loss is own_loss
    assert slim.optimizer is not optimizer
    assert slim.optimizer.get_config() == optimizer.get_config()
    x, y = np.ones((4, 4), np.float32), np.ones((4, 2), np.float32)
    found = slim.evaluate(x, y, verbose=0, return_dict=True)
    assert set(found) == {"loss", "mine"}
    # The metric is another one than the original's.
    assert float(metric.count) == 0
    slim.fit(x, y, verbose=0)


def test_not_compiled_like_the_original() -> None:
    assert not tfprune.slim(keras.Sequential(mlp()), filters=0.5).compiled


class OwnStep(keras.Model):
    def train_step(self, data: object) -> object:
        return super().train_step(data)


def test_the_class_of_a_functional_model_stays() -> None:
    x = keras.Input((4,))
    model = OwnStep(x, layers.Dense(2)(layers.Dense(6, name="a")(x)))
    slim = tfprune.slim(model, filters=0.5)
    assert type(slim) is OwnStep
    assert slim.get_layer("a").units == 3


def test_a_layer_shared_across_nesting() -> None:
    shared = layers.Dense(4)
    start, x = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(start, shared(start))
    model = keras.Model(x, layers.Dense(2)(inner(shared(x))), name="mine")
    with pytest.raises(tfprune.UsageError) as error:
        copy(model)
    assert str(error.value) == (
        "model 'mine' shares a layer with a model nested in it, which a config cannot express: "
        "give each its own layer"
    )


def test_the_input_of_a_nested_model_shrinks() -> None:
    inner = keras.Sequential([keras.Input((6, 6, 4)), conv(3)], name="inner")
    x = image()
    model = randomised(keras.Model(x, head(inner(conv(4, name="a")(x)))))
    slim = tfprune.remove_filters(model, {"a": [2]})
    assert slim.get_layer("inner").inputs[0].shape == (None, 6, 6, 3)
    assert inner.inputs[0].shape == (None, 6, 6, 4)


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist])
def test_weights_given_as_an_array(kind: object) -> None:
    table = keras.initializers.Constant(kind(np.ones((5, 6), np.float32)))
    x = keras.Input((3,), dtype="int32")
    y = layers.Flatten()(layers.Embedding(5, 6, embeddings_initializer=table, name="a")(x))
    slim = tfprune.remove_filters(keras.Model(x, layers.Dense(2)(y)), {"a": [0]})
    np.testing.assert_array_equal(slim.get_layer("a").get_weights()[0], np.ones((5, 5)))


def test_a_layer_and_a_raw_operation_of_one_name() -> None:
    """`layers.Add` and `ops.add`, as in MobileNetV3."""
    x = keras.Input((4,))
    y = layers.Add()([layers.Dense(4)(x) + 3.0, layers.Dense(4)(x)])
    model = randomised(keras.Model(x, layers.Dense(2)(y)))
    inputs = examples(model)
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))


def test_two_classes_of_one_name() -> None:
    def make(factor: float) -> type:
        class Times(layers.Layer):
            def call(self, x: object) -> object:
                return x * factor

        return Times

    parts = [make(2.0)(), make(3.0)()]
    model = randomised(keras.Sequential(mlp(parts[0], layers.Dense(3), parts[1])))
    inputs = examples(model)
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))


def test_trainable_flags_stay() -> None:
    model = keras.Sequential(mlp())
    model.get_layer("a").trainable = False
    slim = tfprune.slim(model, filters=0.5)
    assert len(slim.trainable_variables) == 2
