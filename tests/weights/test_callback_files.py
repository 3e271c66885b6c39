"""Killed and resumed trainings, and the files a pruned training writes."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import optimizers

from tests.tables import slow
from tfprune.training.schedule import constant_sparsity, polynomial_decay
from tfprune.weights import PruneWeights

# Two thirds through at the kill (step 24 of 48), between two updates.
SCHEDULE = polynomial_decay(0.1, 0.9, begin=1, end=40, frequency=7)


def adam(**options):
    return lambda: optimizers.Adam(0.02, **options)


def momentum():
    return optimizers.SGD(0.05, momentum=0.9)


def scaled():
    return optimizers.LossScaleOptimizer(optimizers.Adam(0.02), initial_scale=8.0)


class KilledError(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.doomed = epoch == self.epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.doomed and batch > 4:
            raise KilledError


@pytest.mark.parametrize(
    ("backup_first", "how", "optimizer", "options"),
    [
        (True, {}, adam(), {}),
        slow(False, {}, adam(), {}),
        (True, {"scope": "global"}, adam(), {"steps_per_execution": 3}),
        slow(False, {"select": "random", "seed": 3}, adam(), {}),
        slow(True, {"scope": "global", "select": "random"}, momentum, {}),
        (True, {"select": lambda value: value**2}, adam(use_ema=True, ema_momentum=0.9), {}),
        slow(False, {"pattern": "2:4"}, adam(weight_decay=0.1, clipnorm=0.5), {}),
        slow(True, {"pattern": (1, 4)}, adam(gradient_accumulation_steps=2), {}),
        slow(True, {"layers": {"last": 0.5}}, scaled, {"jit_compile": True}),
    ],
    ids=[
        "backup first",
        "pruner first",
        "global-spe",
        "random",
        "global-random-momentum",
        "function-ema",
        "n:m-decay-clip",
        "blocks-accumulate",
        "layers-scaled-jit",
    ],
)
def test_a_killed_and_resumed_run_equals_one_that_was_not(
    compiled, data, kernels, tmp_path, backup_first, how, optimizer, options
):
    # Half as many updates where gradients are accumulated over two steps.
    halved = optimizer().gradient_accumulation_steps == 2
    schedule = polynomial_decay(0.1, 0.9, 1, 20, 7) if halved else SCHEDULE

    def train(seed, kill=None):
        model = compiled(optimizer(), seed=seed, **{"jit_compile": False} | options)
        pruner = PruneWeights(schedule, **how)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [backup, pruner] if backup_first else [pruner, backup]
        if kill is not None:
            callbacks.append(KillAt(kill))
        # 16 steps an epoch.
        model.fit(*data, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        return model, pruner

    whole, pruner = train(0)
    with pytest.raises(KilledError):
        train(0, kill=2)
    # Other initial weights: all that counts is in the backup.
    resumed, pruner_again = train(1)
    for name, mask in pruner.masks.items():
        np.testing.assert_array_equal(pruner_again.masks[name], mask)
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    if "layers" not in how:
        assert pruner.sparsity == pytest.approx(0.9, abs=4 / 72)


@pytest.mark.slow
def test_files_written_in_training_are_sparse_and_carry_nothing_of_tfprune(
    compiled, data, tmp_path
):
    path = tmp_path / "best.keras"
    model = compiled(optimizers.Adam(0.02, use_ema=True))
    pruner = PruneWeights(constant_sparsity(0.75), layers={"last": 0.5})
    # In the middle of the first epoch, and then no more: masks are on when it is written.
    save = keras.callbacks.ModelCheckpoint(path, save_freq=11)
    model.fit(*data, batch_size=4, verbose=0, callbacks=[pruner, save])
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        assert b"tfprune" not in archive.read("config.json").lower()
    code = (
        "import json, sys\n"
        "sys.modules['tfprune'] = None  # an import of it fails\n"
        "import keras\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "print(json.dumps([int((v.numpy() == 0).sum()) for v in model.weights]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    kernel_zeros = json.loads(done.stdout.splitlines()[-1])[::2]
    assert kernel_zeros == [36, 12]
