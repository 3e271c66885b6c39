"""A training that is killed and run again ends with the same bits, wherever its data lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.tables import slow
from tfprune import data
from tfprune.training import Training, fit

FUNCTION = """
import tensorflow as tf
import numpy as np


def load():
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3)).astype(np.uint8)
    return tf.data.Dataset.from_tensor_slices((x, np.arange(60) % 2)).batch(7)
"""


class Kill(keras.callbacks.Callback):
    """Ends the training in its second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.epoch == 1 and batch == 1:
            raise KeyboardInterrupt


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


@pytest.fixture(params=["folder", *map(slow, ["folder on disk", "files"]), "stream"])
def loaded(request, write_photos, tmp_path) -> data.Dataset:
    """The same kind of data from several places that are not memory."""
    if request.param.startswith("folder"):
        root = write_photos({"cat": 30, "dog": 30}, shape=(4, 4, 3))
        return data.load(str(root), cache="disk" if "disk" in request.param else None)
    if request.param == "stream":
        Path(tmp_path, f"resumed_{tmp_path.name}.py").write_text(FUNCTION)
        return data.load(f"{tmp_path}/resumed_{tmp_path.name}.py:load", cache_mib=1e-3)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), np.uint8))
    np.save(tmp_path / "y.npy", np.arange(60) % 2)
    return data.load(str(tmp_path / "x.npy"))


def test_a_killed_training_resumes_to_the_same_bits(loaded, tmp_path):
    assert not isinstance(loaded.train, data.Arrays)
    settings = Training(epochs=3, batch_size=8, learning_rate=0.01)
    whole, resumed = net(), net()
    fit(whole, loaded, settings, seed=3)
    with pytest.raises(KeyboardInterrupt):
        fit(net(), loaded, settings, seed=3, callbacks=[Kill()], backup_dir=tmp_path / "backup")
    fit(resumed, loaded, settings, seed=3, backup_dir=tmp_path / "backup")
    for ours, theirs in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
