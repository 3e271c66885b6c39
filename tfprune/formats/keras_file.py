"""The `.keras` file: written with the same bytes for the same model, and run by Keras."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import UsageError
from tfprune.formats.runtime import (
    Feeds,
    Runtime,
    StoredWeights,
    check_numbers,
    described,
    stored,
)
from tfprune.formats.signature import plain_names, tensor_names
from tfprune.model import loading
from tfprune.model.counting import count_macs
from tfprune.model.graph import functional, overrides

if TYPE_CHECKING:
    from tfprune.formats.source import Source


def write(source: Source, path: Path) -> None:
    """Writes the model's `.keras` file, which `source` keeps."""
    path.write_bytes(source.keras_file.read_bytes())


def write_keras(model: keras.Model, path: Path) -> None:
    """Saves a finished model.

    Args:
        model: A finished model, without optimizer.
        path: Where to.
    """
    dated = path.with_name(f"dated-{path.name}")
    model.save(dated)
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(path, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                # The time of saving; loading does not read it.
                metadata.pop("date_saved", None)
                content = json.dumps(metadata).encode()
            # A fresh ZipInfo carries a fixed date, and stores without compression as Keras does.
            target.writestr(zipfile.ZipInfo(name), content)
    dated.unlink()


def open_file(path: Path, threads: int) -> Runtime:
    """Opens a `.keras` or legacy `.h5` file; TensorFlow's threads belong to the process."""
    return KerasRuntime(loading.load(path), name=path.name)


class KerasRuntime(Runtime):
    """A Keras model, its inference traced once for every batch size.

    Its inputs and outputs have the names that exported files give them.

    Args:
        model: A built model with any number of inputs and outputs.
        name: What messages call it; the model's own name when not given.

    Raises:
        UsageError: The model is not built.
    """

    format = "keras"

    def __init__(self, model: keras.Model, name: str | None = None) -> None:
        self.model = model
        self.name = name or model.name
        if not getattr(model, "inputs", None):
            raise UsageError(
                f"model '{self.name}' has no fixed input: "
                "give a built Sequential or Functional model"
            )
        self.inputs, self.outputs = (
            tuple(described(n, x.shape, x.dtype) for n, x in zip(names, end, strict=True))
            for names, end in zip(tensor_names(model), (model.inputs, model.outputs), strict=True)
        )
        check_numbers(self.inputs, f"model '{self.name}'")
        self._dtypes = [tf.as_dtype(x.dtype) for x in model.inputs]
        # 0 where it was not set: TensorFlow chooses.
        self.threads = tf.config.threading.get_intra_op_parallelism_threads()
        # A call of its own may compute something else than the graph: it is called as it is.
        own = overrides(type(model), "call") and len(model.inputs) == 1
        self._nested = None if own else functional(model).input
        with contextlib.nullcontext() if own else plain_names(model):
            # Without jit: XLA compiles for seconds and was slower than this on CPU.
            self._call = tf.function(
                self._flat,
                input_signature=[
                    tf.TensorSpec(x.shape, dtype)
                    for x, dtype in zip(model.inputs, self._dtypes, strict=True)
                ],
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

    def _flat(self, *x: tf.Tensor) -> list[tf.Tensor]:
        """The model's outputs in order, however it nests what it takes and gives."""
        nested = x[0] if self._nested is None else keras.tree.pack_sequence_as(self._nested, x)
        return keras.tree.flatten(self.model(nested, training=False))

    def _run(self, feeds: Feeds) -> Feeds:
        found = self._call(*self._cast(feeds))
        return {
            each.name: y.numpy().astype(np.float32)
            for each, y in zip(self.outputs, found, strict=True)
        }

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        x = self._cast(feeds)

        def call() -> np.ndarray:
            # What nobody reads might not be waited for.
            first, *_ = [y.numpy() for y in self._call(*x)]
            return first

        return call

    def _cast(self, feeds: Feeds) -> list[tf.Tensor]:
        return [
            tf.cast(feeds[each.name], dtype)
            for each, dtype in zip(self.inputs, self._dtypes, strict=True)
        ]
