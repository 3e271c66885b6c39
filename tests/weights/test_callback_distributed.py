"""Several devices: TensorFlow's MirroredStrategy, and what keras.distribution does there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.versions import newer_keras

CODE = """
import sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np
from tfprune.training.schedule import polynomial_decay
from tfprune.weights import PruneWeights, prunable

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 6)).astype("float32"), rng.integers(0, 3, 64)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)


class ZerosStay(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        for kernel, mask in zip(kernels(), pruner.masks.values()):
            for copy in kernel:
                assert not copy[~mask].any()
                assert (copy[mask] != 0).all()


def kernels():
    return [
        [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        for _, variable in prunable(model)
    ]


pruner = PruneWeights(polynomial_decay(0.25, 0.75, begin=2, end=13, frequency=3))
before = kernels()
model.fit(x, y, batch_size=4, verbose=0, callbacks=[pruner, ZerosStay()])
for copies, old in zip(kernels(), before):
    assert len(copies) == 2
    np.testing.assert_array_equal(*copies)
    assert np.count_nonzero(copies[0] == 0) == 3 * copies[0].size // 4
    assert (copies[0] != old[0]).any()
assert all(variable.constraint is None for variable in model.variables)

# On TensorFlow it leaves the weights where they are; the masks must not mind.
devices = keras.distribution.list_devices()
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(3)])
model.compile("adam", loss)
model.fit(x, y, batch_size=4, verbose=0, callbacks=[pruner])
assert [int((v.numpy() == 0).sum()) for _, v in prunable(model)] == [36, 18]
print("done")
"""


@pytest.mark.slow
@newer_keras("DataParallel does not work on TensorFlow")
def test_masks_hold_on_every_device():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"
