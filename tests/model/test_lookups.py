from __future__ import annotations

import keras
from keras import layers

from tfprune.model.lookups import table_rows


class Positions(layers.Layer):
    """A word and its place, as keras_hub's TokenAndPositionEmbedding has them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.words, self.places = layers.Embedding(20, 4), layers.Embedding(6, 4)

    def build(self, shape):
        self.words.build(shape)
        self.places.build(shape)

    def call(self, x):
        return self.words(x) + self.places(keras.ops.arange(x.shape[1]))

    def compute_output_shape(self, shape):
        return (*shape, 4)


def test_inputs_that_look_up_rows_are_told_from_the_others() -> None:
    image = keras.Input((4, 4, 3), name="image")
    words = keras.Input((5,), dtype="int32", name="words")
    plain = keras.Input((5,), name="plain")  # Keras' own default is a float
    both = keras.Input((5,), name="both")
    tags = keras.Input((3,), dtype="int32", name="tags")
    inner = keras.Sequential([keras.Input((5,)), layers.Reshape((5,)), layers.Embedding(11, 2)])
    parts = [
        layers.Conv2D(2, 3)(image),
        Positions()(words),
        inner(plain),
        layers.Embedding(30, 2)(both),
        layers.Embedding(7, 2)(keras.ops.expand_dims(both, 1)),
        layers.CategoryEncoding(9)(tags),
        layers.Dense(2)(plain),
    ]
    flat = [layers.Flatten()(part) for part in parts]
    model = keras.Model([image, words, plain, both, tags], layers.Concatenate()(flat))
    assert table_rows(model) == [None, 6, 11, 7, 9]


def test_numbers_that_a_layer_changes_are_no_rows() -> None:
    x = keras.Input((5,))
    model = keras.Model(x, layers.Embedding(4, 2)(keras.ops.argmax(layers.Dense(4)(x), -1)))
    assert table_rows(model) == [None]
