"""Layers and models in models, called several times, with several inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers

import tfprune

from ..harness import examples, outputs, randomised, run_slim_test
from ..models import chain, conv, head, image


def shared_layer() -> keras.Model:
    one, two, shared = image(), image(), conv(5, name="shared")
    tower = conv(4, name="tower")
    y = [shared(tower(one)), shared(tower(two))]
    return keras.Model([one, two], head(layers.Concatenate()(y)))


def shared_over_two_producers() -> keras.Model:
    """What a shared layer reads at both calls goes together."""
    x, shared = image(), conv(5)
    return keras.Model(x, head(layers.Add()([shared(conv(4)(x)), shared(conv(4)(x))])))


def nested(*, sequential: bool, calls: int, size: int = 6) -> keras.Model:
    parts = [conv(5, activation="relu"), layers.BatchNormalization(), conv(4)]
    if sequential:
        inner = keras.Sequential([keras.Input((size, size, 4)), *parts], name="inner")
    else:
        y = start = keras.Input((size, size, 4))
        for part in parts:
            y = part(y)
        inner = keras.Model(start, layers.Add()([start, y]), name="inner")
    x = y = image(size=size)
    y = conv(4)(y)
    for _ in range(calls):
        y = inner(y)
    return keras.Model(x, head(y))


def nested_twice_deep() -> keras.Model:
    core = keras.Sequential([keras.Input((6, 6, 4)), conv(5), layers.ReLU()], name="core")
    start = keras.Input((6, 6, 4))
    middle = keras.Model(start, [core(start), layers.ReLU()(start)], name="middle")
    x = image()
    return keras.Model(x, head(layers.Concatenate()(middle(conv(4)(x)))))


def nested_without_weights() -> keras.Model:
    """Nothing inside the nested model couples its two calls; its Input does."""
    start = keras.Input((6, 6, 4))
    inner = keras.Model(start, layers.ReLU()(start), name="inner")
    x = image()
    y = layers.Concatenate()([conv()(inner(conv()(x))), conv()(inner(conv()(x)))])
    return keras.Model(x, head(y))


def several_inputs_and_outputs() -> keras.Model:
    picture, numbers = image(), keras.Input((3,))
    y = conv(4, activation="relu")(picture)
    flat = layers.GlobalMaxPooling2D()(y)
    z = layers.Dense(5, activation="tanh")(numbers)
    both = layers.Concatenate()([flat, z])
    return keras.Model([picture, numbers], [head(both), conv(1, name="map")(y)])


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "shared layer": shared_layer,
    "shared over two producers": shared_over_two_producers,
    "nested functional": lambda: nested(sequential=False, calls=2),
    "nested sequential": lambda: nested(sequential=True, calls=1),
    "nested sequential twice": lambda: nested(sequential=True, calls=2),
    "nested twice deep": nested_twice_deep,
    "nested without weights": nested_without_weights,
    "several inputs and outputs": several_inputs_and_outputs,
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save="nested" in construct or "several" in construct)


def called_on_the_input_too(first: bool) -> keras.Model:
    start = keras.Input((6, 6, 2))
    inner = keras.Model(start, layers.ReLU()(start), name="inner")
    x = image()
    y = conv(2, name="held")(conv(name="free")(x))
    calls = [inner(x), inner(y)] if first else [inner(y), inner(x)]
    return keras.Model(x, head(conv(name="last")(layers.Concatenate()(calls))))


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (False, "inner reads what has no removable channels"),
        (True, "inner is also called on what has no removable channels"),
    ],
)
def test_a_model_also_called_on_the_input_is_frozen(first: bool, reason: str) -> None:
    groups = run_slim_test(called_on_the_input_too(first), save=False)
    assert groups.frozen["held"] == reason
    assert "free" not in groups.frozen


def test_mixed_precision() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        run_slim_test(chain(conv(), layers.BatchNormalization(), layers.ReLU()), tolerance=5e-3)
    finally:
        keras.config.set_dtype_policy(policy)


def test_names_of_inputs_and_outputs_stay() -> None:
    x, n = keras.Input((6, 6, 2), name="picture"), keras.Input((3,), name="numbers")
    y = layers.Concatenate()([layers.GlobalMaxPooling2D()(conv()(x)), layers.Dense(4)(n)])
    answers = {"one": layers.Dense(2, name="p")(y), "two": layers.Dense(1, name="q")(y)}
    model = randomised(keras.Model({"picture": x, "numbers": n}, answers))
    slim = tfprune.slim(model, filters=0.5)
    assert [each.name for each in slim.inputs] == [each.name for each in model.inputs]
    pictures, numbers = sorted(examples(model), key=lambda each: -each.ndim)
    found = slim({"picture": pictures, "numbers": numbers})
    assert sorted(found) == ["one", "two"]
    assert outputs(slim, {"picture": pictures, "numbers": numbers})[0].shape == (3, 2)
