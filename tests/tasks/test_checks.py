"""Targets are looked at where they lie."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tfprune.data import load
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
