"""`KeepZeros`: trains a sparse model on, its zeros held."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.weights import guard
from tfprune.weights.held import HeldMasks
from tfprune.weights.select import Picks, prunable


class KeepZeros(keras.callbacks.Callback):
    """Holds the weights that are zero when training begins at zero until it ends.

    This is how a pruned model is retrained: fine-tuned, or with its learning rate or its weights
    rewound (Renda et al. 2020, https://arxiv.org/abs/2003.02389). The masks are read from the
    zeros at the first batch, so a restored checkpoint brings its own; nothing stays in the model.
    The masks that an interrupted fit leaves come off when the next one begins.

    Args:
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
    """

    def __init__(self, include: Picks = None, exclude: Picks = None) -> None:
        super().__init__()
        self.include = include
        self.exclude = exclude
        self._masks = HeldMasks()
        self._read = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the masks on."""
        self._masks = HeldMasks(
            variable
            for _, variable in prunable(self.model, self.include, self.exclude)
            if variable.trainable
        )
        self._read = False
        guard.begin(self.model, self._masks)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads the zeros."""
        # Not in on_train_begin: there a later callback may still restore weights.
        if not self._read:
            self._masks.assign([value != 0 for value in self._masks.values()])
            self._read = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Masks what another callback put into the weights, such as averages."""
        self._masks.apply()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the masks off."""
        # An optimizer with use_ema has just put averages in, which are not zero.
        self._masks.apply()
        self._masks.release()
        guard.end(self.model, self._masks)
