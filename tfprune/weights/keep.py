"""`KeepZeros`: trains a sparse model on, its zeros held."""

from __future__ import annotations

from typing import Any

from tfprune.weights.held import HeldMasks
from tfprune.weights.holding import Holding
from tfprune.weights.select import Picks, prunable


class KeepZeros(Holding):
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
        self._read = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the masks on."""
        self._release()
        self._read = False
        self._hold(
            HeldMasks(
                variable
                for _, variable in prunable(self.model, self.include, self.exclude)
                if variable.trainable
            )
        )
        self._watch()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads the zeros."""
        # Not in on_train_begin: there a later callback may still restore weights.
        if not self._read:
            self._held.assign([value != 0 for value in self._held.values()])
            self._read = True
