"""Each group is cut alone, the best channels stay, and the model is not touched."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import UsageError
from tfprune.filters import sensitivity


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, name="one"),
            keras.layers.Conv2D(4, 3, name="two"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="logits"),
        ]
    )


def test_a_row_a_group_and_share_and_only_that_group_is_smaller(model):
    seen = []

    def filters(slim: keras.Model) -> float:
        seen.append((slim.get_layer("one").filters, slim.get_layer("two").filters))
        return 0.5

    before = model.get_weights()
    table = sensitivity(model, filters, keep=(0.75, 0.25))
    assert seen == [(8, 4), (6, 4), (2, 4), (8, 3), (8, 1)]
    assert table.layers.tolist() == ["", "one", "one", "two", "two"]
    assert table.kept.tolist() == [0, 6, 2, 3, 1]
    # The logits are the model's output: nothing of them can go.
    assert "logits" not in set(table.layers)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_least_important_channels_go_first(model):
    kernel = np.asarray(model.get_layer("one").kernel).copy()
    kernel[..., 3] *= 1000
    model.get_layer("one").kernel.assign(kernel)
    kept = []
    sensitivity(
        model,
        lambda slim: kept.append(np.abs(slim.get_layer("one").kernel).max()) or 0.0,
        keep=(0.125,),
        importance="l2",
    )
    assert kept[1] == np.abs(kernel[..., 3]).max()


def test_removing_what_is_dead_costs_nothing(model):
    for name in ("one", "two"):
        layer = model.get_layer(name)
        kernel, bias = (np.asarray(each).copy() for each in layer.get_weights())
        kernel[..., ::2], bias[::2] = 0, 0
        layer.set_weights([kernel, bias])
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    whole = np.asarray(model(images))

    def error(slim: keras.Model) -> float:
        return float(np.abs(np.asarray(slim(images)) - whole).max())

    table = sensitivity(model, error, keep=(0.5,))
    assert table.accuracy.max() < 1e-5
    assert tfprune.macs(model) > 0


def test_a_share_outside_its_range_is_one_line(model):
    with pytest.raises(UsageError) as caught:
        sensitivity(model, lambda slim: 0.0, keep=(1.5,))
    assert str(caught.value) == "keep=1.5 is not a share to keep: give a number in 0..1"
