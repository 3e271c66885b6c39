"""Dead weights may come back where that is asked for, and zeros are zero between updates."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from tests.weights.watched import SETTINGS, watched_fit, zeros
from tfprune.schedule import constant_sparsity, polynomial_decay
from tfprune.weights import PruneWeights

SCHEDULE = polynomial_decay(0.25, 0.75, begin=2, end=13, frequency=3)


@SETTINGS
def test_zeros_are_zero_between_updates_and_the_schedule_arrives(
    compiled, data, kernels, optimizer, options
):
    options = dict(options)
    epochs = options.pop("epochs", 1)
    model = compiled(optimizer(), jit_compile=options.pop("jit_compile", False), **options)
    pruner = PruneWeights(SCHEDULE, regrow=True)
    watched = watched_fit(model, data, pruner, epochs=epochs)
    assert watched.seen == sorted(watched.seen)
    assert zeros(kernels(model)) == [36, 18]
    assert pruner.sparsity == watched.seen[-1] == 0.75
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel != 0, pruner.masks[name])


def one_weight_matters(value: float) -> tuple[keras.Model, tuple[np.ndarray, np.ndarray]]:
    """A linear model whose last weight alone is of use, and starts as the smallest."""
    model = keras.Sequential([layers.Input((8,)), layers.Dense(1, use_bias=False, name="dense")])
    start = np.full((8, 1), 0.1, "float32")
    start[-1] = value
    model.layers[0].kernel.assign(start)
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    model.compile(optimizers.SGD(0.05), "mse", jit_compile=False)
    return model, (x, 3 * x[:, -1:])


@pytest.mark.parametrize("regrow", [True, False])
def test_a_weight_that_the_gradient_wants_comes_back(regrow):
    model, data = one_weight_matters(0.01)
    pruner = PruneWeights(constant_sparsity(0.5, frequency=2), regrow=regrow)
    watched = watched_fit(model, data, pruner)
    alive = bool(pruner.masks["dense/kernel"][-1, 0])
    assert alive == regrow == bool(watched.came_back)
    assert (abs(model.layers[0].kernel.numpy()[-1, 0]) > 1) == regrow
    assert zeros({"kernel": model.layers[0].kernel.numpy()}) == [4]


def test_in_a_loop_of_ones_own():
    model, (x, y) = one_weight_matters(0.01)
    pruner = PruneWeights(constant_sparsity(0.5, frequency=2), regrow=True)
    pruner.set_model(model)
    with pruner:
        pruner.update(0)
        assert not pruner.masks["dense/kernel"][-1, 0]
        for step in range(1, 8):
            model.train_on_batch(x, y)
            pruner.update(step)
            kernel = model.layers[0].kernel.numpy()
            np.testing.assert_array_equal(kernel[~pruner.masks["dense/kernel"]], 0)
    assert pruner.masks["dense/kernel"][-1, 0]


def test_steps_run_at_once_that_reach_no_update_leave_zeros_zero():
    """Seven steps by fours: the second four would reach the update at step 8, and stop at 7."""
    model, (x, y) = one_weight_matters(0.01)
    model.compile(optimizers.SGD(0.05), "mse", jit_compile=False, steps_per_execution=4)
    pruner = PruneWeights(constant_sparsity(0.5, begin=0, frequency=8), regrow=True)
    watched = watched_fit(model, (x[:28], y[:28]), pruner)
    assert not watched.came_back
    assert zeros({"kernel": model.layers[0].kernel.numpy()}) == [4]


def test_a_training_that_goes_on_gives_the_same_weights(tmp_path):
    def pruner() -> PruneWeights:
        return PruneWeights(SCHEDULE, regrow=True)

    whole, data = one_weight_matters(0.01)
    whole.fit(*data, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[pruner()])
    parts, _ = one_weight_matters(0.01)
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    parts.fit(*data, batch_size=4, shuffle=False, verbose=0, callbacks=[pruner(), backup])
    later, _ = one_weight_matters(0.5)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    later.fit(*data, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[pruner(), backup])
    np.testing.assert_array_equal(whole.get_weights()[0], later.get_weights()[0])
