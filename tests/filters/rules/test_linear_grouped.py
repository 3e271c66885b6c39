from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

from ..harness import randomised, run_slim_test
from ..models import chain, conv

CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "depthwise": lambda: chain(
        conv(),
        layers.DepthwiseConv2D(3, strides=2, activation="relu"),
        layers.DepthwiseConv2D(2, depth_multiplier=2),
        layers.BatchNormalization(),
        conv(3),
    ),
    "depthwise 1d": lambda: chain(
        layers.Conv1D(4, 2), layers.DepthwiseConv1D(3, depth_multiplier=2), shape=(9, 2)
    ),
    "separable": lambda: chain(
        layers.SeparableConv2D(4, 3, padding="same", activation="relu"),
        layers.SeparableConv2D(5, 3, depth_multiplier=2, dilation_rate=2),
        layers.BatchNormalization(),
        layers.SeparableConv2D(3, 2, use_bias=False),
    ),
    "separable 1d": lambda: chain(
        layers.SeparableConv1D(4, 2), layers.SeparableConv1D(3, 2, strides=2), shape=(9, 2)
    ),
    "groups": lambda: chain(conv(8), conv(6, groups=2, activation="relu"), conv(3)),
    "groups, strides, no bias": lambda: chain(
        conv(6), layers.Conv2D(9, 3, groups=3, strides=2, use_bias=False), conv(3)
    ),
    "groups 1d": lambda: chain(layers.Conv1D(8, 2), layers.Conv1D(8, 2, groups=2), shape=(9, 2)),
    "groups 3d": lambda: chain(
        layers.Conv3D(4, 2), layers.Conv3D(6, 2, groups=2), shape=(4, 4, 4, 1)
    ),
    "groups of one": lambda: chain(
        conv(5), conv(5, groups=5, activation="relu"), layers.BatchNormalization(), conv(3)
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save=construct in ("separable", "groups of one"))


def test_a_block_as_in_convnext() -> None:
    x = keras.Input((6, 6, 2))
    start = conv(6)(x)
    y = conv(6, groups=6)(start)
    y = layers.Dense(6)(layers.Dense(9, activation="gelu")(y))
    y = layers.GlobalAveragePooling2D()(layers.Add()([start, y]))
    groups = run_slim_test(keras.Model(x, layers.Dense(2)(y)))
    assert [group.size for group in groups] == [6, 9, 2]


def test_the_channels_at_one_place_of_every_group_go_together() -> None:
    model = randomised(chain(conv(8, name="a"), conv(6, groups=2, name="b"), conv(3)))
    slim = tfprune.remove_filters(model, {"a": [1], "b": [2]})
    a, b = slim.get_layer("a"), slim.get_layer("b")
    assert (a.filters, b.filters, b.groups) == (6, 4, 2)
    kernel = np.asarray(model.get_layer("b").kernel)
    kept = kernel[:, :, [0, 2, 3]][..., [0, 1, 3, 4]]
    np.testing.assert_array_equal(np.asarray(b.kernel), kept)


def test_groups_of_one_shrink_in_number() -> None:
    model = chain(conv(5, name="a"), conv(5, groups=5, name="b"))
    b = tfprune.remove_filters(model, {"a": [1, 4]}).get_layer("b")
    assert (b.filters, b.groups, b.kernel.shape) == (3, 3, (3, 3, 1, 3))


def test_one_channel_and_several_filters_a_group() -> None:
    """What goes in would take whole groups with it; the filters of all groups go alike."""
    groups = run_slim_test(chain(conv(3, name="a"), conv(6, groups=3, name="b"), conv(3)))
    assert [group.size for group in groups][:2] == [1, 2]
    assert groups.frozen["a"] == "b reads one of them in each of its 3 groups"
