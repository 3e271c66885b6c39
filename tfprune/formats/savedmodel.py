"""The SavedModel: written with the same bytes for the same model, and served by TensorFlow."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from tfprune.archives import pack, saved_model_root, unpack
from tfprune.errors import TfpruneError, one_line
from tfprune.files import read_json, write_json
from tfprune.formats.runtime import (
    Feeds,
    Runtime,
    StoredWeights,
    described,
    plain_name,
    stored,
)
from tfprune.quiet import quiet

if TYPE_CHECKING:
    import keras

    from tfprune.formats.source import Source

SIGNATURE = "serving_default"
# TensorFlow leaves this folder to others: https://www.tensorflow.org/guide/saved_model.
_ORDER = "assets.extra/tfprune.json"
# TensorFlow numbers the functions it traces, and what they capture, through the process.
_NUMBERED = re.compile(r'(__inference_\w*?_|_user_specified_name"\s+value \{\s+s: ")(\d+)\b')


class _Served(tf.Module):
    """What the SavedModel holds: the weights in the model's order, and the call.

    `model.export` lists variables in the order of a set, which differs from export to export,
    and stores each name twice; otherwise this is what it writes.
    """

    def __init__(self, model: keras.Model, batch: int | None = None) -> None:
        import keras

        from tfprune.formats.signature import flattened, tensor_names

        super().__init__()
        inputs, outputs = tensor_names(model)
        specs = [
            tf.TensorSpec((x.shape[0] or batch, *x.shape[1:]), x.dtype, name=name)
            for x, name in zip(model.inputs, inputs, strict=True)
        ]
        self.weights = [weight.value for weight in model.weights]

        def serve(image: tf.Tensor) -> tf.Tensor:
            return model(image, training=False)

        single = len(inputs) == len(outputs) == 1
        # Operations of the graph bear the name: the same bytes need the same one.
        flat = model if single else flattened(model, plain_name(model.name))

        def serve_several(*images: tf.Tensor) -> dict[str, tf.Tensor]:
            # A list of one output comes as that output alone.
            made = keras.tree.flatten(flat(list(images), training=False))
            return dict(zip(outputs, made, strict=True))

        call = serve if flat is model else serve_several
        self.serve = tf.function(call, input_signature=specs)


def write(source: Source, path: Path) -> None:
    """Writes an archive that holds the SavedModel in a folder of the model's name."""
    pack(source.saved_model, path, root=source.name)


def write_saved_model(model: keras.Model, directory: Path, batch: int | None = None) -> None:
    """Saves the inference graph of a model, with the signature `serving_default`.

    Args:
        model: A finished model; see `tensor_names` for what its inputs and outputs are called.
        directory: Where to; it must not exist.
        batch: The only batch size that it takes, where the model takes any.

    Raises:
        TfpruneError: The model loses the batch where it has a fixed size.
    """
    from tfprune.formats.signature import plain_names, tensor_names

    served = _Served(model, batch)
    with quiet(), plain_names(model):
        signature = served.serve.get_concrete_function()
        for y in tf.nest.flatten(signature.structured_outputs) if batch else ():
            if y.shape.rank is not None and y.shape[:1] != [batch]:
                raise TfpruneError(
                    f"model '{model.name}' gives an output of shape {tuple(y.shape)} for a batch "
                    f"of {batch}: name the axis of every squeeze"
                )
        tf.saved_model.save(served, str(directory), {SIGNATURE: signature})
    inputs, outputs = tensor_names(model)
    if len(inputs) > 1 or len(outputs) > 1:
        # A signature forgets the order of what goes in and comes out.
        write_json(directory / _ORDER, {"inputs": inputs, "outputs": outputs})
    _make_reproducible(directory)


def holds_loop(directory: Path) -> bool:
    """Whether a SavedModel's graph has a loop, such as that of an LSTM over its steps.

    Args:
        directory: From `write_saved_model`.
    """
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    return any(
        node.op in ("While", "StatelessWhile")
        for graph in saved.meta_graphs
        for function in graph.graph_def.library.function
        for node in function.node_def
    )


def _make_reproducible(directory: Path) -> None:
    """Takes out what differs between two exports of one model: a random id and running numbers."""
    # TensorFlow's fingerprint is a random uuid and checksums, which loading does not need.
    (directory / "fingerprint.pb").unlink(missing_ok=True)
    path = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    text = text_format.MessageToString(saved)
    numbers = sorted({int(number) for _, number in _NUMBERED.findall(text)})
    new = {str(number): str(place) for place, number in enumerate(numbers)}
    text = _NUMBERED.sub(lambda match: match[1] + new[match[2]], text)
    saved = text_format.Parse(text, saved_model_pb2.SavedModel())
    for graph in saved.meta_graphs:
        library = graph.graph_def.library
        functions = sorted(library.function, key=lambda function: function.signature.name)
        del library.function[:]
        library.function.extend(functions)
    path.write_bytes(saved.SerializeToString(deterministic=True))


def open_file(path: Path, threads: int) -> Runtime:
    """Opens a SavedModel; TensorFlow's threads belong to the process."""
    return SavedModelRuntime(path)


def _ordered(root: Path, end: str, names: list[str]) -> list[str]:
    """The names of inputs or outputs in the order of the model, where tfprune wrote it down."""
    path = root / _ORDER
    if not path.is_file():
        return names
    found = read_json(path)
    order = found.get(end) if isinstance(found, dict) else None
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(names):
        raise TfpruneError(f"{path} does not fit its SavedModel: export it again")
    return [str(name) for name in order]


class SavedModelRuntime(Runtime):
    """The default serving signature of a SavedModel.

    Args:
        path: A SavedModel directory, or a `.tar.gz` or `.tar.zst` that holds one.

    Raises:
        TfpruneError: It is damaged, or has no serving signature.
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
        self._specs = signature.structured_input_signature[1]
        outputs = signature.structured_outputs
        for spec in (*self._specs.values(), *outputs.values()):
            if spec.shape.rank is None:
                raise TfpruneError(f"{path} does not say its input's shape: export it with one")
        self.inputs, self.outputs = (
            tuple(
                described(name, end[name].shape, end[name].dtype.name)
                for name in _ordered(root, key, list(end))
            )
            for key, end in (("inputs", self._specs), ("outputs", outputs))
        )
        self._signature = signature
        self.threads = tf.config.threading.get_intra_op_parallelism_threads()

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables that serving uses, each once."""
        return list({id(v): v for v in self._signature.variables}.values())

    def weights(self) -> Iterator[StoredWeights]:
        """The variables that serving uses."""
        for variable in self.variables:
            yield stored(variable.name, variable.numpy())

    def _run(self, feeds: Feeds) -> Feeds:
        found = self._signature(**self._cast(feeds))
        return {name: y.numpy().astype(np.float32) for name, y in found.items()}

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        x, names = self._cast(feeds), [each.name for each in self.outputs]

        def call() -> np.ndarray:
            found = self._signature(**x)
            # What nobody reads might not be waited for.
            first, *_ = [found[name].numpy() for name in names]
            return first

        return call

    def _cast(self, feeds: Feeds) -> dict[str, tf.Tensor]:
        return {name: tf.cast(feeds[name], spec.dtype) for name, spec in self._specs.items()}
