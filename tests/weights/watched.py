"""What tests of pruning in a training have in common: a fit that is watched, and settings."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import optimizers

from tfprune.weights import PruneWeights


class ZerosStay(keras.callbacks.Callback):
    """Compares the weights with the masks after every batch and epoch."""

    def __init__(self, pruner: PruneWeights) -> None:
        super().__init__()
        self.pruner = pruner
        self.came_back = 0
        self.seen: list[float] = []
        self.before: dict[str, np.ndarray] = {}

    def check(self) -> None:
        for name, mask in self.pruner.masks.items():
            self.came_back += np.count_nonzero(mask & ~self.before.get(name, mask))
        assert self.pruner.regrow or not self.came_back, "a weight came back"
        self.before = self.pruner.masks
        for (variable, _), mask in zip(self.pruner._held, self.pruner._masks, strict=False):
            dead = keras.ops.convert_to_numpy(variable)[~mask]
            # As bits: a -0 would compress worse, and a NaN equals nothing.
            np.testing.assert_array_equal(dead.view(f"uint{8 * dead.itemsize}"), 0)

    def on_train_batch_end(self, batch, logs=None):
        self.check()
        self.seen.append(logs["sparsity"])

    def on_epoch_end(self, epoch, logs=None):
        self.check()


def fit(model, data, pruner, **options):
    """Sixteen steps an epoch; returns the sparsities logged after each batch."""
    return watched_fit(model, data, pruner, **options).seen


def watched_fit(model, data, pruner, **options):
    """As `fit`, and returns what watched."""
    watcher = ZerosStay(pruner)
    options = {"batch_size": 4, "epochs": 1, "shuffle": False, "verbose": 0} | options
    callbacks = [pruner, watcher, *options.pop("callbacks", [])]
    history = model.fit(*data, callbacks=callbacks, **options)
    assert history.history["sparsity"][-1] == watcher.seen[-1]
    return watcher


def zeros(kernels) -> list[int]:
    return [int(np.count_nonzero(kernel == 0)) for kernel in kernels.values()]


SETTINGS = pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (lambda: optimizers.SGD(0.1, momentum=0.9), {}),
        (lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True), {"run_eagerly": True}),
        (lambda: optimizers.Adam(0.01), {"jit_compile": True}),
        (lambda: optimizers.Adam(0.01), {"steps_per_execution": 4}),
        (lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9), {}),
        (lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3), {}),
        (lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2), {"epochs": 2}),
        (lambda: optimizers.AdamW(0.01, weight_decay=0.1), {}),
        (lambda: optimizers.Adam(0.01, clipnorm=0.1), {}),
        (lambda: optimizers.Adam(0.01, global_clipnorm=0.1), {}),
        (lambda: optimizers.SGD(0.1, clipvalue=0.01), {}),
        (lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=8.0), {}),
    ],
    ids=[
        "momentum",
        "eager",
        "jit",
        "spe",
        "ema",
        "ema-overwrite",
        "accumulate",
        "adamw",
        "clipnorm",
        "global-clipnorm",
        "clipvalue",
        "scaled",
    ],
)
