"""Zeros that are there stay while training goes on."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfprune.weights import KeepZeros, prune_once


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
    ],
    ids=["momentum", "adam", "ema"],
)
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_zeros_stay_and_the_rest_learns(make_model, data, optimizer, steps_per_execution):
    model = prune_once(make_model(), 0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(), loss, steps_per_execution=steps_per_execution)
    before = [np.asarray(layer.kernel) for layer in model.layers]
    model.fit(*data, batch_size=4, epochs=2, verbose=0, callbacks=[KeepZeros()])
    for layer, old in zip(model.layers, before, strict=True):
        new = np.asarray(layer.kernel)
        np.testing.assert_array_equal(new == 0, old == 0)
        # All but what a dead ReLU leaves without a gradient.
        assert (new[old != 0] != old[old != 0]).mean() > 0.7


def test_nothing_stays_in_the_model(compiled, data):
    inner = keras.constraints.NonNeg()
    model = compiled()
    model.layers[0].kernel.constraint = inner
    model.fit(*data, verbose=0, callbacks=[KeepZeros()])
    assert model.layers[0].kernel.constraint is inner
    assert model.layers[1].kernel.constraint is None
    # Without the callback zeros are free again.
    model.layers[1].kernel.assign(0 * model.layers[1].kernel)
    model.fit(*data, verbose=0)
    assert np.asarray(model.layers[1].kernel).any()


def test_zeros_are_read_after_other_callbacks_have_restored_weights(compiled, data):
    class Restore(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            kernel = np.asarray(self.model.layers[0].kernel).copy()
            kernel[0] = 0
            self.model.layers[0].kernel.assign(kernel)

    model = compiled()
    model.fit(*data, verbose=0, callbacks=[KeepZeros(), Restore()])
    assert not np.asarray(model.layers[0].kernel)[0].any()
    assert np.asarray(model.layers[0].kernel)[1:].all()
