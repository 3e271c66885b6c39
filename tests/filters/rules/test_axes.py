from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune

from ..harness import run_slim_test
from ..models import chain, conv, frozen_between

CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "flatten": lambda: chain(conv(), layers.Flatten(), layers.Dense(3)),
    "maps to steps": lambda: chain(conv(), layers.Reshape((-1, 4)), layers.Conv1D(3, 2)),
    "steps to maps": lambda: chain(
        layers.Dense(4), layers.Reshape((3, 3, 4)), conv(3), shape=(9, 2)
    ),
    "vector to map": lambda: chain(
        conv(), layers.GlobalMaxPooling2D(), layers.Reshape((1, 1, 4)), conv(3)
    ),
    "everything in one": lambda: chain(conv(), layers.Reshape((-1,)), layers.Dense(3)),
    "back again": lambda: chain(
        conv(), layers.Flatten(), layers.Reshape((6, 6, 4)), layers.Permute((3, 1, 2))
    ),
    "wide": lambda: chain(conv(), layers.Reshape((4, 36)), layers.Conv1D(3, 2)),
    "channels split": lambda: chain(conv(6), layers.Reshape((6, 6, 2, 3)), layers.Dense(4)),
    "channels shuffled": lambda: chain(
        conv(8),
        layers.Reshape((6, 6, 2, 4)),
        layers.Permute((1, 2, 4, 3)),
        layers.Reshape((6, 6, 8)),
        conv(3),
    ),
    "permuted": lambda: chain(conv(), layers.Permute((3, 2, 1)), layers.Permute((2, 3, 1)), conv()),
    "repeated": lambda: chain(
        layers.Dense(4), layers.RepeatVector(3), layers.Conv1D(3, 2), shape=(5,)
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save=construct == "channels shuffled")


def test_the_target_shape_is_rewritten() -> None:
    model = chain(conv(6, name="a"), layers.Reshape((36, 2, 3), name="split"), layers.Dense(3))
    slim = tfprune.remove_filters(model, {"a": [1]})
    assert slim.get_layer("a").filters == 4
    assert slim.get_layer("split").target_shape == (36, 2, 2)


def test_a_reshape_across_channels_is_frozen() -> None:
    groups = run_slim_test(frozen_between(layers.Reshape((-1, 9), name="mine")), save=False)
    assert groups.frozen["held"] == "mine mixes them with other axes"
    assert "free" not in groups.frozen


def test_a_reshape_of_an_open_size() -> None:
    x = keras.Input((None, None, 2))
    y = layers.Reshape((-1, 4))(conv(name="a")(x))
    y = layers.GlobalAveragePooling1D()(layers.Conv1D(3, 1)(y))
    model = keras.Model(x, layers.Dense(2)(y))
    assert "a" not in tfprune.channel_groups(model).frozen
    slim = tfprune.remove_filters(model, {"a": [1]})
    assert slim(np.ones((2, 6, 5, 2))).shape == (2, 2)
    x = keras.Input((None, 4, 2))
    y = layers.Reshape((-1, 8))(conv(name="a")(x))
    model = keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(y)))
    slim = tfprune.remove_filters(model, {"a": [1]})
    assert slim(np.ones((2, 6, 4, 2))).shape == (2, 2)
    y = layers.Reshape((-1, 6), name="mine")(conv(name="held")(x))
    model = keras.Model(x, layers.GlobalMaxPooling1D()(y))
    assert tfprune.channel_groups(model).frozen["held"] == "mine reshapes a tensor of open size"


def test_flatten_of_an_open_size_is_frozen() -> None:
    x = keras.Input((None, None, 2))
    model = keras.Model(x, layers.Flatten(name="flat")(conv(name="held")(x)))
    assert tfprune.channel_groups(model).frozen == {"held": "flat flattens a tensor of open size"}


def test_flatten_puts_channel_i_mod_c_at_i() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2)
    flat = np.asarray(layers.Flatten(data_format="channels_first")(x))[0]
    np.testing.assert_array_equal(flat, [x.reshape(4, 6)[i % 4, i // 4] for i in range(24)])


def _factored(draw: Callable, total: int) -> tuple[int, ...]:
    shape = []
    while total > 1 and len(shape) < 3 and draw(st.booleans()):
        shape.append(draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0])))
        total //= shape[-1]
    return (*shape, total)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_reshape_is_sliced_rightly_or_frozen(data: st.DataObject) -> None:
    target = _factored(data.draw, 2 * 2 * 6)
    x = keras.Input((2, 2, 3))
    y = layers.Reshape(target)(layers.Dense(6)(x))
    y = layers.Reshape(_factored(data.draw, 24))(y)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Dense(3)(y))))
    run_slim_test(model, removable=None, save=False)
