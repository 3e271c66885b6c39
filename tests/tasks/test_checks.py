"""Targets are looked at where they lie."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.tasks import small
from tests.tasks.small import COUNT
from tfprune.data import load
from tfprune.errors import UsageError
from tfprune.tasks import TaskSpec, find_task


@pytest.mark.parametrize("channels", [1, 2])
def test_masks_in_files_are_targets(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    rows = ["photo,mask"]
    for number in range(40):
        names = (f"{number}.png", f"mask{number}.png")
        for name, pixels in zip(
            names, (rng.integers(0, 256, (3, 5)), 255 * rng.integers(0, 2, (3, 5))), strict=True
        ):
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
        rows.append(",".join(names))
    index = tmp_path / "index.csv"
    index.write_text("\n".join(rows))
    dataset = load(str(index), options={"inputs": "photo", "targets": "mask"})
    last = keras.layers.Conv2D(channels, 1, activation="sigmoid" if channels == 1 else None)
    model = keras.Sequential([keras.Input((3, 5, 1)), last])
    task = find_task(model, TaskSpec(kind="segmentation"), dataset)
    task.check(model, dataset)
    assert task.figure.name == "mean_iou"


@pytest.mark.reliability("outputs in a dict, of layers with other names", "refused")
def test_outputs_that_an_older_keras_cannot_pair_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = keras.Input((4,))
    ends = {name: keras.layers.Dense(1, name=f"{name}_layer")(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, ends)
    rng = np.random.default_rng(0)
    targets = {name: rng.normal(size=(COUNT, 1)).astype(np.float32) for name in ends}
    dataset = small.dataset(small.inputs_of(model, rng), targets)
    task = find_task(model, TaskSpec(kind="regression", figure="a/mae"), dataset)
    monkeypatch.setattr(keras, "__version__", "3.12.0")
    task.check(model, dataset)
    monkeypatch.setattr(keras, "__version__", "3.11.3")
    with pytest.raises(UsageError, match="'a' as 'a_layer' alone: give the layer that makes it"):
        task.check(model, dataset)
