"""Data-parallel training on two logical CPUs, which are set when a process starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfprune import UsageError, data
from tfprune.training import Training, fit
from tfprune.training.distribution import check_devices

SCRIPT = r"""
import json, sys, tempfile
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import tfprune
from tfprune import UsageError, data
from tfprune.training import Training, fit
from tfprune.training.distillation import Teacher

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")

def dataset(count=60):
    splits = [data.Arrays(X[:count], Y[:count]), data.Arrays(X[:20], Y[:20])]
    return data.Dataset("toy", ("a", "b"), *splits, splits[1], "a toy")

def net(seed=0, dropout=0.0):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8,)), layers.Dense(16, "relu"), layers.Dropout(dropout, seed=1),
        layers.Dense(2),
    ])

def training(**changes):
    given = {"epochs": 3, "batch_size": 20, "optimizer": "adam", "learning_rate": 0.02}
    return Training(**given | changes)

def pruner():
    return tfprune.PruneWeights(tfprune.polynomial_decay(0.0, 0.75, 0, 6, frequency=2))

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

def trained(callbacks=(), backup=None, teacher=None, dropout=0.0, **changes):
    model = net(0, dropout)
    result = fit(model, dataset(), training(**changes), seed=0, callbacks=callbacks,
                 backup_dir=backup, teacher=teacher)
    weights = model.get_weights()
    return {
        "loss": result.history["loss"].tolist(),
        "val_loss": result.history["val_loss"].tolist(),
        "weights": [weight.tolist() for weight in weights],
        "zeros": float(np.mean(weights[0] == 0)),
        "best": result.best_epoch,
        "devices": len(getattr(model.weights[0].value, "values", (0,))),
    }

both = {"distribution": "data-parallel"}
half = {**both, "precision": "mixed_float16", "early_stopping": 1, "dropout": 0.1}
out = {
    "one": trained(teacher=Teacher(net(5))),
    "two": trained(teacher=Teacher(net(5)), **both),
    "pruned": trained([pruner()], **half),
}
learner = tfprune.LearnStructure(filters=0.5, frequency=2)
out["learnt"] = trained([learner], **both)
out["learnt"]["dead"] = learner.dead_share()
with tempfile.TemporaryDirectory() as folder:
    try:
        trained([pruner(), Kill()], folder, **half)
    except KeyboardInterrupt:
        pass
    out["resumed"] = trained([pruner()], folder, **half)
try:
    fit(net(), dataset(41), training(**both), seed=0)
except UsageError as error:
    out["error"] = str(error)
json.dump(out, sys.stdout)
"""


@pytest.fixture(scope="module")
def results() -> dict:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_two_devices_learn_as_one_does(results: dict) -> None:
    """From the targets and from a teacher."""
    for column in ("loss", "val_loss"):
        np.testing.assert_allclose(results["one"][column], results["two"][column], rtol=1e-4)
    for mine, other in zip(results["one"]["weights"], results["two"]["weights"], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pruned", "resumed"])
def test_masked_weights_stay_zero(results: dict, name: str) -> None:
    """In float16 and with early stopping, too."""
    assert results[name]["zeros"] == 0.75


@pytest.mark.slow
def test_channels_are_learnt(results: dict) -> None:
    assert results["learnt"]["dead"] == 0.5
    kernel = np.array(results["learnt"]["weights"][0])
    assert (~kernel.any(axis=0)).sum() == 8


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bits(results: dict) -> None:
    """With dropout, a loss scale and early stopping."""
    assert results["resumed"] == results["pruned"]


@pytest.mark.slow
def test_the_model_is_on_one_device_again(results: dict) -> None:
    assert {result["devices"] for name, result in results.items() if name != "error"} == {1}


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(results: dict) -> None:
    assert results["error"] == (
        "the last batch of the train split has 1 example, and distribution = "
        '"data-parallel" shares it among 2 devices: give another batch_size'
    )


def test_one_device_is_refused(digits: data.Dataset) -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(UsageError, match=r"needs 2 GPUs or more, and TensorFlow sees \d: leave"):
        fit(model, digits, Training(epochs=1, distribution="data-parallel"), seed=0)
    with pytest.raises(UsageError, match="needs 2 GPUs"):
        check_devices(4, {"train": 8})
