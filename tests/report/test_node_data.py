"""Node data of Model Explorer: a figure of each operator, by the name of the tensor it makes."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

import tfprune
from tfprune.errors import UsageError
from tfprune.report.node_data import write_node_data


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A net whose first kernel is three quarters zero, and the same with half of its channels."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("files")
    net = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.Flatten(),
            layers.Dense(2, name="logits"),
        ]
    )
    kernel = np.where(np.arange(72).reshape(3, 3, 1, 8) % 4, 0.0, 1.0)
    net.get_layer("conv").kernel.assign(kernel)
    half = tfprune.remove_filters(net, {"conv": [1, 2, 3, 5]})
    made = {}
    for name, model in (("dense", net), ("half", half)):
        (artifact,) = tfprune.export(model, folder, ["tflite"], name=name)
        made[name] = artifact.path
    return made


def read(path: Path) -> dict[str, float]:
    document = json.loads(path.read_text())
    assert [stop["stop"] for stop in document["gradient"]] == [0, 1]
    return {name: node["value"] for name, node in document["results"].items()}


def test_each_operator_has_the_share_of_its_own_zeros(files, tmp_path):
    (path,) = write_node_data(files["dense"], tmp_path)
    assert path == tmp_path / "dense.sparsity.json"
    values = read(path)
    # The converter adds a bias of zeros to the convolution's 18 living weights of 72.
    (conv,) = [value for name, value in values.items() if "conv" in name]
    assert conv == pytest.approx(1 - 18 / (72 + 8))
    assert all(0 <= value <= 1 for value in values.values())


def test_the_channels_that_an_operator_lost_are_those_since_the_baseline(files, tmp_path):
    _, path = write_node_data(files["half"], tmp_path, baseline=files["dense"])
    values = read(path)
    assert path.name == "half.channels-removed.json"
    assert {value for name, value in values.items() if "conv" in name} == {4}
    # The last operator makes the two logits still.
    assert list(values.values())[-1] == 0


def test_figures_of_a_device_go_to_operators_that_the_file_has(files, tmp_path):
    (conv,) = [
        name for name in read(write_node_data(files["dense"], tmp_path)[0]) if "conv" in name
    ]
    table = pd.DataFrame(
        {"layer": [conv, "made by the compiler"], "kind": ["a", "b"], "cycles": [7, 9]}
    )
    *_, path = write_node_data(files["dense"], tmp_path, layers={"board": table})
    assert path.name == "dense.board-cycles.json"
    assert read(path) == {conv: 7}


def test_other_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"net\.keras is not a \.tflite file"):
        write_node_data(tmp_path / "net.keras", tmp_path)
