from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.artifacts import export
from tfprune.errors import TfpruneError
from tfprune.formats.tflite_micro import Buffer, memory, place_buffers

BUFFERS = st.lists(
    st.builds(
        lambda size, first, length: Buffer(size, first, first + length),
        st.integers(1, 100),
        st.integers(-1, 9),
        st.integers(0, 4),
    ),
    max_size=12,
)


@given(BUFFERS)
def test_buffers_that_live_at_once_share_no_byte(buffers: list[Buffer]) -> None:
    placed = list(zip(place_buffers(buffers), buffers, strict=True))
    for (start, one), (other_start, other) in combinations(placed, 2):
        if one.first <= other.last and other.first <= one.last:
            assert start + one.size <= other_start or other_start + other.size <= start


@given(BUFFERS)
def test_the_plan_lies_between_what_lives_at_once_and_all(buffers: list[Buffer]) -> None:
    ends = [start + each.size for start, each in zip(place_buffers(buffers), buffers, strict=True)]
    alive = [
        sum(each.size for each in buffers if each.first <= time <= each.last)
        for time in range(-1, 15)
    ]
    assert max(alive) <= max(ends, default=0) <= sum(each.size for each in buffers)


@pytest.mark.parametrize("name", ["tflite", "tflite-int8", "tflite-int16x8"])
def test_tflite_micro_plans_the_same_and_needs_no_more(
    export_paths: dict[str, Path], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    check_against_tflite_micro(export_paths[name].read_bytes(), capfd)


@pytest.mark.slow
def test_the_plan_of_many_equal_buffers_is_theirs_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which of equal buffers goes first decides how they are stacked."""
    x = inputs = keras.Input((8, 8, 2))
    for _ in range(4):
        y = keras.layers.Conv2D(2, 3, padding="same", activation="relu")(x)
        y = keras.layers.Conv2D(2, 3, padding="same")(y)
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    (artifact,) = export(model, tmp_path, ["tflite"])
    check_against_tflite_micro(artifact.path.read_bytes(), capfd)


def check_against_tflite_micro(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    needs = memory(content)
    # It also refuses what it has no kernel for, so that our list of kernels is not too long.
    micro.Interpreter.from_bytes(content, arena_size=1 << 20).print_allocations()
    printed = "".join(capfd.readouterr())
    total, head = (
        int(re.search(rf"Arena allocation {part} (\d+)", printed)[1])  # type: ignore[index]
        for part in ("total", "head")
    )
    assert needs.activation_bytes == head
    assert total <= needs.arena_bytes <= total + 4096


def test_operators_are_listed_once_with_their_line(export_paths: dict[str, Path]) -> None:
    needs = memory(export_paths["tflite-int8"].read_bytes())
    lines = dict(zip(needs.operators, needs.resolver, strict=True))
    assert lines["CONV_2D"] == "resolver.AddConv2D();"
    assert lines["DEPTHWISE_CONV_2D"] == "resolver.AddDepthwiseConv2D();"
    assert lines["MAX_POOL_2D"] == "resolver.AddMaxPool2D();"
    assert lines["FULLY_CONNECTED"] == "resolver.AddFullyConnected();"
    assert lines["ADD"] == "resolver.AddAdd();"


@pytest.mark.slow
def test_images_of_any_size_have_no_arena(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(inputs))
    data = np.random.default_rng(0).uniform(0, 255, (20, 6, 6, 1))
    with pytest.raises(TfpruneError, match="does not take inputs of any size"):
        export(keras.Model(inputs, x), tmp_path, ["c-array"], data)


def test_an_operator_that_microcontrollers_lack_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.ops.arctan2(inputs, inputs + 1.0)))
    data = np.random.default_rng(0).uniform(0, 255, (20, 4, 4, 1))
    with pytest.raises(TfpruneError, match="TFLite Micro has no kernel for ATAN2: leave the C"):
        export(model, tmp_path, ["c-array-float"], data)
    assert list(tmp_path.iterdir()) == []
