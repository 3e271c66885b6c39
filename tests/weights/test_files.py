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

from tfprune.weights import PruneWeights, constant_sparsity, polynomial_decay

# Two thirds through at the kill (step 24 of 48), between two updates.
SCHEDULE = polynomial_decay(0.1, 0.9, begin=1, end=40, frequency=7)


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


@pytest.mark.parametrize("backup_first", [True, False], ids=["backup first", "pruner first"])
@pytest.mark.parametrize(
    ("how", "options"),
    [
        ({}, {}),
        ({"scope": "global"}, {"steps_per_execution": 3}),
        ({"select": "random", "seed": 3}, {}),
        ({"scope": "global", "select": "random"}, {}),
    ],
    ids=["layer", "global-spe", "random", "global-random"],
)
def test_a_killed_and_resumed_run_equals_one_that_was_not(
    compiled, data, kernels, tmp_path, backup_first, how, options
):
    def train(seed, kill=None):
        model = compiled(optimizers.Adam(0.02), seed=seed, **options)
        pruner = PruneWeights(SCHEDULE, **how)
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
    assert pruner.sparsity == pytest.approx(0.9, abs=1 / 48)


def test_files_written_in_training_are_sparse_and_carry_nothing_of_tfprune(
    compiled, data, tmp_path
):
    path = tmp_path / "best.keras"
    model = compiled()
    save = keras.callbacks.ModelCheckpoint(path)
    model.fit(*data, verbose=0, callbacks=[PruneWeights(constant_sparsity(0.75)), save])
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
    assert kernel_zeros == [36, 18]
