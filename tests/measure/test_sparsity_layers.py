"""MACs and parameters, layer by layer; TensorFlow's profiler counts the same work."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

import tfprune
from benchmarks.macs import APPLICATIONS, ZOO, profiled_macs
from tfprune.errors import UsageError
from tfprune.formats import load
from tfprune.measure import layer_table


def test_rows_are_the_layers_and_add_up(model: keras.Model) -> None:
    table = layer_table(model).set_index("layer")
    assert list(table.columns) == ["macs", "parameters", "share"]
    work = [64 * 27 * 4, 64 * 36 * 4, 64 * 4]
    assert table.loc["first"].tolist() == [work[0], 27 * 4, pytest.approx(work[0] / sum(work))]
    assert table.loc["logits", ["macs", "parameters"]].tolist() == [work[2], 64 * 4 + 4]
    norm = next(layer for layer in table.index if "normalization" in layer)
    assert table.loc[norm, ["macs", "parameters"]].tolist() == [0, 4 * 4]
    total = table.loc["total"]
    assert total["macs"] == tfprune.macs(model) == table["macs"][:-1].sum()
    assert total["parameters"] == model.count_params() == table["parameters"][:-1].sum()
    assert table["share"][:-1].sum() == pytest.approx(1)


def test_a_shared_layer_stands_once_with_all_its_work() -> None:
    conv = keras.layers.Conv2D(2, 3, padding="same", use_bias=False, name="conv")
    block = keras.Sequential([keras.Input((4, 4, 2)), conv], name="block")
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, block(block(inputs)))
    table = layer_table(model)
    assert table["layer"].tolist() == ["block/conv", "total"]
    assert table["macs"].tolist() == [2 * 16 * 36] * 2
    assert table["parameters"].tolist() == [36, 36]


def test_a_model_without_weights_has_a_total_of_nothing() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    assert layer_table(model).to_dict("records") == [
        {"layer": "total", "macs": 0, "parameters": 0, "share": 0.0}
    ]


def test_an_open_size_is_one_line() -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    with pytest.raises(UsageError, match=r"give input_shape .--input-shape., or a fixed shape"):
        layer_table(model)
    assert load(model).macs() is None


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(5, 3, strides=2, padding="same"),
        # In groups the CPU compiles the convolution, where the profiler does not look.
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
        keras.layers.SeparableConv2D(5, 3),
        keras.layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        keras.layers.Dense(7),
    ],
    ids=lambda layer: layer.name,
)
def test_a_layer_costs_what_the_profiler_says(layer: keras.layers.Layer) -> None:
    # What is trained follows, so that the layer's own output is used.
    model = keras.Sequential([keras.Input((9, 9, 4)), layer, keras.layers.BatchNormalization()])
    assert tfprune.macs(model) == profiled_macs(model)


def test_a_model_costs_what_the_profiler_and_its_files_say(
    model: keras.Model, files: dict[str, Path]
) -> None:
    assert tfprune.macs(model) == profiled_macs(model)
    for form in ("keras", "tflite", "tflite-int8"):
        assert load(files[form]).macs() == tfprune.macs(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ZOO, *APPLICATIONS])
def test_every_net_costs_what_the_profiler_says(name: str) -> None:
    model = {**ZOO, **APPLICATIONS}[name]()
    assert tfprune.macs(model) == profiled_macs(model)
    assert layer_table(model)["parameters"].iloc[-1] == model.count_params()
