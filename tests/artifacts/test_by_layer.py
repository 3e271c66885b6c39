"""The layer that int8 hurts is found, and left in float32 it no longer hurts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tests.filters.harness import randomised
from tfprune.errors import UsageError


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 6, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """`wild` has a channel of 300 times the others, which `reader` does not read."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(8, 1, name="wild")(x)
    x = layers.Conv2D(6, 1, name="reader")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = randomised(keras.Model(inputs, layers.Dense(4, name="logits")(x)))
    for name, factor in (("wild", np.r_[300.0, np.ones(7)]), ("reader", None)):
        kernel, bias = model.get_layer(name).get_weights()
        if factor is None:
            kernel[:, :, 0] = 0
        else:
            kernel, bias = kernel * factor, bias * factor
        model.get_layer(name).set_weights([kernel, bias])
    return model


@pytest.mark.slow
def test_the_layer_that_int8_hurts_comes_first(model: keras.Model, images: np.ndarray) -> None:
    labels = np.asarray(model(images.astype(np.float32))).argmax(axis=1)
    told = []
    table = tfprune.precision(
        model, (images, labels), images, progress=lambda *each: told.append(each)
    )
    assert table["layer"].tolist()[0] in ("wild", "reader")
    assert set(table["layer"]) == {"first", "wild", "reader", "mean", "logits"}
    fused = table.set_index("layer")["fused"]
    assert fused["first"] == "norm, relu"
    assert set(fused.drop("first")) == {""}
    assert told == [(place, 5) for place in range(1, 6)]
    # Labels are the float model's own answers.
    assert table.attrs["float32"] == 1.0
    assert table.attrs["int8"] <= table["alone"].max() <= 1.0
    assert table.attrs["int8_error"] > table["error"].min()
    assert table.attrs["figure"].name == "accuracy"
    weights = table.set_index("layer")["weights"]
    assert (weights["first"], weights["mean"]) == (3 * 3 * 3 * 8 + 8, 0)
    worst = table.set_index("layer").loc["wild"]
    others = table[~table["layer"].isin(["wild", "reader"])]
    assert worst["error"] > 3 * others["error"].max()
    # Neither of the two alone helps: what lies between them is in int8 then.
    keep = {"wild": "float32", "reader": "float32"}
    assert table["kept_error"].min() > 0
    assert keep.keys() <= set(table["layer"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x: x, "data has no targets to measure with: give (x, y)"),
        (lambda x: (x[:, :3], np.zeros(len(x), int)), "data"),
    ],
)
def test_what_does_not_fit_is_said(
    model: keras.Model, images: np.ndarray, data: object, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        tfprune.precision(model, data(images), images)  # type: ignore[operator]
    assert message in str(error.value)


def test_examples_are_spread_over_data_that_are_sorted_by_class() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(inputs))
    model.set_weights([np.zeros((4, 3)), np.array([1.0, 0.0, 0.0])])
    x = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    table = tfprune.precision(model, (x, np.arange(90) // 30), x, examples=9)
    # It always answers the class that comes first.
    assert table.attrs["float32"] == pytest.approx(1 / 3)
