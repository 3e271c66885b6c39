"""A model with fixed sizes computes what the open one does, with the same names and weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import UsageError
from tfprune.model.input_shape import fix_input_shape, open_inputs


def sequential() -> keras.Model:
    model = keras.Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    model.build((None, None, None, 3))
    return model


def nested() -> keras.Model:
    """Two inputs and two outputs by name; models two deep, one of them called on two shapes."""
    image = keras.Input((None, None, 3), name="image")
    words = keras.Input((None,), dtype="int32", name="words")
    inner = keras.Input((None, None, 4))
    norm = keras.Sequential(
        [keras.Input((None, None, 4)), layers.BatchNormalization(), layers.ReLU()], name="norm"
    )
    block = keras.Model(inner, layers.Conv2D(4, 3, padding="same")(norm(inner)), name="block")
    head = keras.Sequential([keras.Input((None, None, 4)), layers.Conv2D(2, 1)], name="head")
    x = block(layers.Conv2D(4, 3, strides=2, name="stem")(image))
    small = layers.GlobalMaxPooling2D()(head(layers.MaxPooling2D()(x)))
    steps = layers.LSTM(3)(layers.Embedding(7, 4)(words))
    return keras.Model(
        {"image": image, "words": words},
        {"label": layers.Dense(3)(layers.Concatenate()([small, steps])), "map": head(x)},
    )


def one_dimensional() -> keras.Model:
    return keras.Sequential(
        [keras.Input((None, 2)), layers.Conv1D(3, 3), layers.GlobalMaxPooling1D()]
    )


RNG = np.random.default_rng(0)
CASES = {
    "sequential": (sequential, (9, 7, 3), RNG.normal(size=(2, 9, 7, 3))),
    "signal": (one_dimensional, (50, 2), RNG.normal(size=(2, 50, 2))),
    "nested": (
        nested,
        {"image": (16, 12, 3), "words": (5,)},
        {"image": RNG.normal(size=(2, 16, 12, 3)), "words": RNG.integers(0, 7, (2, 5))},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outputs_names_and_weights_are_the_same(case: str) -> None:
    build, shape, x = CASES[case]
    model = build()
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.1, 1, weight.shape))
    fixed = fix_input_shape(model, shape)
    keras.tree.map_structure(np.testing.assert_array_equal, model(x), fixed(x))
    assert [layer.name for layer in fixed.layers] == [layer.name for layer in model.layers]
    assert [weight.path for weight in fixed.weights] == [weight.path for weight in model.weights]
    assert open_inputs(fixed) == {}
    assert open_inputs(model)
    assert type(fixed) is type(model)
    # It is fixed now, so there is nothing left to do.
    assert fix_input_shape(fixed, shape) is fixed


def test_nested_models_take_the_sizes_that_they_are_called_with() -> None:
    shape = {"image": (16, 12, 3), "words": (5,)}
    fixed = fix_input_shape(nested(), shape)
    block = fixed.get_layer("block")
    assert block.inputs[0].shape == block.get_layer("norm").inputs[0].shape == (None, 7, 5, 4)
    # Two calls with two sizes leave it open.
    assert fixed.get_layer("head").inputs[0].shape == (None, None, None, 4)


def test_a_recurrent_layer_knows_its_steps() -> None:
    open_steps = keras.Sequential([keras.Input((None, 3)), layers.LSTM(2)])
    fixed = fix_input_shape(open_steps, (6, 3))
    assert tfprune.macs(fixed) == 6 * (3 + 2) * 8
    assert fixed.layers[0].get_build_config()["input_shape"] == (None, 6, 3)


def test_one_of_several_inputs_may_stay_open() -> None:
    fixed = fix_input_shape(nested(), {"words": (4,)})
    assert open_inputs(fixed) == {"image": (None, None, 3)}
    assert fixed({"image": np.zeros((1, 20, 20, 3)), "words": np.zeros((1, 4))})


@pytest.mark.parametrize(
    ("case", "shape", "message"),
    [
        ("sequential", (9, 7, 4), r"input_shape \(9, 7, 4\) does not fit input .* takes \(None,"),
        ("sequential", (9, 7), "does not fit input"),
        ("sequential", (9, 0, 3), "must be whole numbers above 0"),
        ("sequential", (9, None, 3), "must be whole numbers above 0"),
        ("sequential", {"a": (9, 9, 3), "b": (9,)}, "has no input 'a'"),
        ("nested", (16, 12, 3), "has the inputs image, words: give a shape for each by its name"),
        ("nested", {"imago": (16, 12, 3)}, "no input 'imago': did you mean 'image'"),
    ],
)
def test_a_shape_that_does_not_fit_is_one_line(case: str, shape, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        fix_input_shape(CASES[case][0](), shape)
    assert "\n" not in str(error.value)
