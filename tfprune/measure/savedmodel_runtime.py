"""Serves a SavedModel, from a directory or from an archive."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfprune.archives import saved_model_root, unpack
from tfprune.errors import TfpruneError, one_line
from tfprune.measure.interface import Runner, Runtime
from tfprune.measure.stored import StoredWeights, stored

SIGNATURE = "serving_default"


class SavedModelRuntime(Runtime):
    """The default serving signature of a SavedModel.

    Args:
        path: A SavedModel directory, or a `.tar.gz` or `.tar.zst` that holds one.

    Raises:
        TfpruneError: It is damaged, or has no serving signature with one input and one output.
    """

    format = "savedmodel"

    def __init__(self, path: Path) -> None:
        self.name = path.name
        directory = path
        if not path.is_dir():
            # Lives as long as the runtime: TensorFlow may read variables and assets late.
            self._unpacked = tempfile.TemporaryDirectory(prefix="tfprune-")
            directory = Path(self._unpacked.name)
            unpack(path, directory)
        try:
            root = saved_model_root(directory)
        except TfpruneError as error:
            raise TfpruneError(f"{path}: {error}") from error
        try:
            # The loaded object owns the variables; the signature alone would let them go.
            self._loaded = tf.saved_model.load(str(root))
            signature = self._loaded.signatures[SIGNATURE]
        # TensorFlow raises whatever the damaged part raises, DecodeError and KeyError included.
        except Exception as error:
            raise TfpruneError(
                f"{path} cannot be loaded as a SavedModel ({one_line(error)}): export it again"
            ) from error
        inputs = signature.structured_input_signature[1]
        outputs = signature.structured_outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise TfpruneError(
                f"{path} serves {len(inputs)} inputs and {len(outputs)} outputs: "
                "give a model with one of each"
            )
        ((self._input, spec),) = inputs.items()
        (self._output,) = outputs
        if spec.shape.rank is None:
            raise TfpruneError(f"{path} does not say its input's shape: export it with one")
        self._signature = signature
        self._dtype = spec.dtype
        self.fixed_batch, *shape = spec.shape.as_list()
        self.input_shape = tuple(shape)
        self.threads = tf.config.threading.get_intra_op_parallelism_threads()

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables that serving uses, each once."""
        return list({id(v): v for v in self._signature.variables}.values())

    def weights(self) -> Iterator[StoredWeights]:
        """The variables that serving uses."""
        for variable in self.variables:
            yield stored(variable.name, variable.numpy())

    def _runners(self, images: np.ndarray, batch_size: int) -> tuple[int, Sequence[Runner]]:
        # TensorFlow has threads of its own.
        return self.fixed_batch or batch_size, [self._run]

    def _run(self, batch: np.ndarray) -> np.ndarray:
        outputs = self._signature(**{self._input: tf.cast(batch, self._dtype)})
        return outputs[self._output].numpy().astype(np.float32)

    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        feed = {self._input: tf.cast(batch, self._dtype)}
        return lambda: self._signature(**feed)[self._output].numpy()
