"""Runs a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import UsageError
from tfprune.measure.interface import Runner, Runtime
from tfprune.measure.stored import StoredWeights, stored
from tfprune.model.counting import count_macs


class KerasRuntime(Runtime):
    """A Keras model, its inference traced once for every batch size.

    Args:
        model: A built model with one input and one output.
        name: What messages call it; the model's own name when not given.

    Raises:
        UsageError: The model is not built, or has several inputs or outputs.
    """

    format = "keras"

    def __init__(self, model: keras.Model, name: str | None = None) -> None:
        self.model = model
        self.name = name or model.name
        inputs = getattr(model, "inputs", None)
        if not inputs:
            raise UsageError(
                f"model '{self.name}' has no fixed input: "
                "give a built Sequential or Functional model"
            )
        if len(inputs) != 1 or len(model.outputs) != 1:
            raise UsageError(
                f"model '{self.name}' has {len(inputs)} inputs and {len(model.outputs)} outputs: "
                "give a model with one of each"
            )
        self.fixed_batch, *shape = inputs[0].shape
        self.input_shape = tuple(shape)
        self._dtype = tf.as_dtype(inputs[0].dtype)
        # 0 where nobody set it: TensorFlow chooses.
        self.threads = tf.config.threading.get_intra_op_parallelism_threads()
        # Without jit: XLA compiles for seconds and was slower than this on CPU.
        self._call = tf.function(
            lambda x: model(x, training=False),
            input_signature=[tf.TensorSpec(inputs[0].shape, self._dtype)],
        ).get_concrete_function()

    def weights(self) -> Iterator[StoredWeights]:
        """All of `model.weights`, BatchNorm's statistics included."""
        for variable in self.model.weights:
            yield stored(variable.path, np.asarray(variable))

    def macs(self) -> int | None:
        """See `tfprune.macs`; None where the model has no graph, an open size or unknown layers."""
        try:
            return count_macs(self.model).whole_macs
        except UsageError:
            return None

    def _runners(self, images: np.ndarray, batch_size: int) -> tuple[int, Sequence[Runner]]:
        # TensorFlow has threads of its own.
        return self.fixed_batch or batch_size, [self._run]

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self._call(tf.cast(batch, self._dtype)).numpy().astype(np.float32)

    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        x = tf.cast(batch, self._dtype)
        return lambda: self._call(x).numpy()
