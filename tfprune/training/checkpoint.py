"""Saves the history of a training and its state after the last finished epoch, in one file.

Keras' BackupAndRestore keeps no history. It writes the weights and the epoch to two files, which
may not match after a kill, and it reads the epoch only after the data stream exists.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfprune.errors import RefusedError, TfpruneError
from tfprune.training.backup import COLUMN, FILE
from tfprune.training.early_stopping import BestEpoch

_VARIABLE = "variable/"
_BEST = "best/"
_BEST_EPOCH = "best_epoch"
_IDENTITY = "identity"


def restore(
    model: keras.Model, directory: Path, settings: str, best: BestEpoch | None = None
) -> pd.DataFrame:
    """Restores a compiled model to the state after the last finished epoch.

    Example:
        ```python
        history = restore(model, Path("backup"), "digits, seed 0")
        model.fit(x, y, initial_epoch=len(history), epochs=10)
        ```

    It restores the weights, the optimizer's slots and step count, and the states of random layers.

    Args:
        model: a compiled model with a built optimizer; changed in place.
        directory: where `EpochLog` saved the training; may be missing or empty.
        settings: a text that identifies the settings of the training; equal for equal trainings.
        best: the early stopping of the training, if it has one; it continues as well.

    Returns:
        One row for each finished epoch; empty if there is nothing to restore.

    Raises:
        TfpruneError: the file belongs to another training or cannot be read.
    """
    path = directory / FILE
    if not path.exists():
        return pd.DataFrame()
    try:
        with np.load(path) as archive:
            stored = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise TfpruneError(f"{path} cannot be read ({error}): delete it to start anew") from error
    variables = _state(model)
    if str(stored.pop(_IDENTITY, "")) != _identity(variables, settings):
        raise TfpruneError(
            f"{path} belongs to a training of another model or with other settings: "
            "delete it, or back up elsewhere"
        )
    for index, variable in enumerate(variables):
        variable.assign(stored[f"{_VARIABLE}{index}"])
    history = pd.DataFrame(
        {name.removeprefix(COLUMN): v for name, v in stored.items() if name.startswith(COLUMN)}
    )
    if best is not None and _BEST_EPOCH in stored:
        epoch = int(stored[_BEST_EPOCH])
        figures = history.set_index("epoch")[best.column]
        weights = [stored[f"{_BEST}{index}"] for index in range(len(model.weights))]
        best.resume(epoch, float(figures.loc[epoch]), weights)
    return history


class EpochLog(keras.callbacks.Callback):
    """Records one row for each epoch, saves each epoch, and stops at a loss that is not finite.

    Example:
        ```python
        log = EpochLog(pd.DataFrame(), Path("backup"), "digits, seed 0")
        model.fit(x, y, epochs=10, callbacks=[log])
        log.history  # epoch, loss, learning_rate, seconds, ...
        ```

    Place it after the callbacks that change weights or add to the logs, so that it saves their
    changes.

    Args:
        history: the rows of earlier epochs, from `restore`.
        directory: where to save; None to save nothing.
        settings: as for `restore`.
        best: as for `restore`; it comes before the log.
    """

    def __init__(
        self,
        history: pd.DataFrame,
        directory: Path | None,
        settings: str,
        best: BestEpoch | None = None,
    ) -> None:
        super().__init__()
        self._best = best
        self.history = history
        self._directory = directory
        self._settings = settings
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the timer of the epoch."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Adds a row to the history and saves the epoch."""
        figures = dict(logs or {})
        if not math.isfinite(figures["loss"]):
            raise RefusedError(
                f"the loss became {figures['loss']} in epoch {epoch + 1}: "
                "lower learning_rate, or add warmup_epochs"
            )
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {
            "epoch": epoch + 1,
            **figures,
            "learning_rate": rate,
            "seconds": time.monotonic() - self._started,
        }
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        if self._directory is not None:
            self._save(self._directory)

    def _save(self, directory: Path) -> None:
        variables = _state(self.model)
        arrays = {_IDENTITY: np.array(_identity(variables, self._settings))}
        for index, variable in enumerate(variables):
            arrays[f"{_VARIABLE}{index}"] = keras.ops.convert_to_numpy(variable)
        if self._best is not None and self._best.epoch is not None:
            arrays[_BEST_EPOCH] = np.array(self._best.epoch)
            arrays |= {f"{_BEST}{index}": w for index, w in enumerate(self._best.weights)}
        for column in self.history:
            arrays[f"{COLUMN}{column}"] = self.history[column].to_numpy()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # A rename is atomic only within one file system, so the file is written next to it.
            with tempfile.TemporaryDirectory(dir=directory, prefix=".partial-") as partial:
                fresh = Path(partial, FILE)
                with fresh.open("wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(directory / FILE)
        except OSError as error:
            raise TfpruneError(
                f"the backup in {directory} cannot be written ({error}): free space there, "
                "or back up elsewhere"
            ) from error


def _state(model: keras.Model) -> list[keras.Variable]:
    """All variables that the next epoch depends on, in the same order for a rebuilt model."""
    return [*model.variables, *model.optimizer.variables]


def _identity(variables: list[keras.Variable], settings: str) -> str:
    # Names that Keras numbers differ between processes; shapes do not.
    shapes = [(str(v.dtype), tuple(v.shape)) for v in variables]
    return hashlib.sha256(repr((settings, shapes)).encode()).hexdigest()
