"""Data-parallel training: each device computes a part of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from tfprune.errors import UsageError
from tfprune.model import cloning
from tfprune.model.graph import finalize_states


def devices() -> list[str]:
    """The devices that share a batch: the GPUs, or the logical CPUs where there is no GPU.

    Example:
        ```python
        devices()  # ["GPU:0", "GPU:1"]
        ```
    """
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [f"{kind}:{index}" for index in range(len(tf.config.list_logical_devices(kind)))]


def check_devices(batch_size: int, examples: dict[str, int]) -> None:
    """Checks that there are devices for a data-parallel training, and that batches can be shared.

    Example:
        ```python
        check_devices(128, {"train": 50_000, "validation": 5_000})
        ```

    Args:
        batch_size: examples in one step.
        examples: how many each split has.

    Raises:
        UsageError: there is one device only, or a batch has fewer examples than there are devices.
    """
    count = len(devices())
    if count < 2:
        raise UsageError(
            'distribution = "data-parallel" needs 2 GPUs or more, and TensorFlow sees '
            f"{len(tf.config.list_logical_devices('GPU'))}: leave distribution out"
        )
    for split, size in examples.items():
        # The mean loss of no example is not a number.
        last = size % batch_size or batch_size
        if last < count:
            raise UsageError(
                f"the last batch of the {split} split has {last} "
                f"{'example' if last == 1 else 'examples'}, and distribution = "
                f'"data-parallel" shares it among {count} devices: give another batch_size'
            )


@contextmanager
def replicated(model: keras.Model, parallel: bool) -> Iterator[keras.Model]:
    """A copy of a model on each device within the context; the model gets the weights at its end.

    Example:
        ```python
        with replicated(model, parallel=True) as trained:
            trained.compile("adam", "mse")
            trained.fit(batches)
        ```

    It is `tf.distribute.MirroredStrategy`: Keras' own `DataParallel` does not share batches with
    the TensorFlow backend. Each step has the whole batch size; a BatchNorm layer takes the
    statistics of the part of a batch that its device has.

    Args:
        model: a functional or built Sequential model.
        parallel: False gives the model itself.

    Raises:
        UsageError: the model cannot be rebuilt from its config.
    """
    if not parallel:
        yield model
        return
    strategy = tf.distribute.MirroredStrategy(devices())
    with strategy.scope():
        twin = cloning.from_config(model, cloning.config_of(model))
        _copy_state(model, twin)
        yield twin
    _copy_state(twin, model)


def _copy_state(source: keras.Model, target: keras.Model) -> None:
    """Copies all variables of layers: weights, and the states of random layers."""
    for old, new in cloning.matching_layers(source, target):
        if isinstance(old, keras.Layer):
            for mine, other in zip(old.variables, new.variables, strict=True):
                other.assign(keras.ops.convert_to_numpy(mine))
    finalize_states(target)
