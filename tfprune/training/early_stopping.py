"""Stops a training that does not improve, and puts the weights of its best epoch back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.figures import Direction


class BestEpoch(keras.callbacks.Callback):
    """Stops a training after some epochs without an improvement; the best weights stay.

    Example:
        ```python
        best = BestEpoch("val_loss", "lower", patience=5)
        model.fit(x, y, epochs=100, validation_split=0.1, callbacks=[best])
        best.epoch  # the epoch whose weights the model has now, from 1
        ```

    Epochs count from the one at whose end each callback of `others` has arrived: one that has an
    attribute `arrived`, as `PruneWeights` and `LearnStructure` do, which is False while a
    schedule still changes what the model consists of. So the training does not stop on the way to
    a sparsity, and the weights that are put back have the final one. Place it after the callbacks
    that change weights.

    Args:
        column: the figure of an epoch's logs that decides.
        better: its direction.
        patience: epochs without an improvement after which the training stops.
        others: the other callbacks of the training.

    Attributes:
        epoch: the best epoch, from 1; None if there is none yet.
        weights: the arrays of `model.weights` after it.
    """

    def __init__(
        self,
        column: str,
        better: Direction,
        patience: int,
        others: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        super().__init__()
        self._column = column
        self._sign = 1 if better == "higher" else -1
        self._patience = patience
        self._others = others
        self._value = -math.inf
        self.epoch: int | None = None
        self.weights: list[np.ndarray] = []

    def resume(self, epoch: int, value: float, weights: list[np.ndarray]) -> None:
        """Continues after a kill.

        Args:
            epoch: the best epoch so far, from 1.
            value: its figure.
            weights: its weights.
        """
        self.epoch, self._value, self.weights = epoch, self._sign * value, weights

    def over(self, epoch: int) -> bool:
        """Whether the training stops after an epoch, from 1."""
        return self.epoch is not None and epoch - self.epoch >= self._patience

    @property
    def column(self) -> str:
        """The figure that decides."""
        return self._column

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Compares the epoch with the best one."""
        logs = logs or {}
        if self._column not in logs:
            raise TfpruneError(
                f"early_stopping waits for {self._column!r}, and the training has "
                f"{', '.join(sorted(logs))}: give the task a figure that is one of its metrics"
            )
        if not all(getattr(other, "arrived", True) for other in self._others):
            return
        value = self._sign * float(logs[self._column])
        # A NaN is not better than anything.
        if value > self._value:
            self.epoch, self._value = epoch + 1, value
            self.weights = [np.array(weight) for weight in self.model.get_weights()]
        elif self.over(epoch + 1):
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Puts the weights of the best epoch back."""
        if self.epoch is not None:
            self.model.set_weights(self.weights)
            return
        warnings.warn(
            f"early_stopping: no epoch with a {self._column} that is a number came after the "
            "schedules had arrived, so the weights are those of the last epoch; train longer, or "
            "end the schedules sooner",
            stacklevel=2,
        )
