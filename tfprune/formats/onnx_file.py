"""The ONNX file: written by Keras' own exporter, run by ONNX Runtime, and read for its weights.

Only writing needs TensorFlow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.formats.runtime import Feeds, Runtime, StoredWeights, described, stored
from tfprune.quiet import quiet

try:
    import onnx
    import onnxruntime
    from onnx import numpy_helper, shape_inference
except ImportError:
    raise UsageError("ONNX files need onnxruntime: pip install 'tfprune[onnx]'") from None

if TYPE_CHECKING:
    import keras

    from tfprune.formats.source import Source

# Operators whose kernel is applied at every position of one of their ends.
_AT_OUTPUTS, _AT_INPUTS, _ON_ROWS = {"Conv"}, {"ConvTranspose"}, {"Gemm", "MatMul"}
# Operators on computed values or with loops: their count does not follow from shapes of weights.
_UNKNOWN = {"Einsum", "If", "Loop", "Scan", "LSTM", "GRU", "RNN", "ConvInteger", "QLinearConv"}


def write(source: Source, path: Path) -> None:
    """Exports to ONNX through tf2onnx.

    Of a model with loops, such as a SimpleRNN's, the same weights may give other bytes: tf2onnx
    has no fixed order for the nodes in a loop.

    Args:
        source: The model.
        path: Where to.

    Raises:
        TfpruneError: ONNX has no operator for what a layer computes.
    """
    import keras

    from tfprune.formats.signature import flattened, layers_in, plain_names, tensor_names

    model = source.model
    # Keras' exporter says nothing of training, and layers of augmentation would augment.
    flat = flattened(model)
    serving = keras.Model(flat.inputs, flat(flat.inputs, training=False))
    with quiet(), _constants_as_arrays(model), _calls_inline(), plain_names(model):
        # Keras exports only what was called before; any size will do.
        shapes = [(x.shape[0] or 1, *(size or 32 for size in x.shape[1:])) for x in flat.inputs]
        serving([np.zeros(s, x.dtype) for s, x in zip(shapes, flat.inputs, strict=True)])
        serving.export(str(path), format="onnx", verbose=False)
    proto = onnx.load(path)
    missing = {
        node.op_type: node.name
        for node in proto.graph.node
        if not onnx.defs.has(node.op_type, node.domain)
    }
    if missing:
        raise TfpruneError(
            f"ONNX has no operator for {', '.join(missing)}"
            f"{layers_in(model, missing.values())}: "
            "leave ONNX out, or replace the layers that use it"
        )
    _rename(proto.graph, *tensor_names(model))
    path.write_bytes(proto.SerializeToString(deterministic=True))


@contextmanager
def _calls_inline() -> Iterator[None]:
    """Lets functions that a layer compiles for itself be a part of the graph.

    Keras compiles grouped convolutions with XLA, and tf2onnx leaves such a call as it stands.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def _constants_as_arrays(model: keras.Model) -> Iterator[None]:
    """Lets layers hold arrays where they hold tensors, as Normalization its mean.

    tf2onnx takes a tensor that a function captures for one more input of the model.
    """
    import keras

    from tfprune.model.graph import named_layers

    held = [
        (layer, name, value)
        for layer in named_layers(model).values()
        for name, value in vars(layer).items()
        if keras.ops.is_tensor(value) and not isinstance(value, keras.Variable)
    ]
    for layer, name, value in held:
        setattr(layer, name, keras.ops.convert_to_numpy(value))
    try:
        yield
    finally:
        for layer, name, value in held:
            setattr(layer, name, value)


def _rename(graph: Any, inputs: list[str], outputs: list[str]) -> None:
    """Names everything by its place: tf2onnx counts through the process."""
    names = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
    names |= {value.name: name for value, name in zip(graph.output, outputs, strict=True)}
    _rename_all(graph, names, itertools.count())
    for value in [*graph.input, *graph.output]:
        for size in value.type.tensor_type.shape.dim[:1]:
            if not size.HasField("dim_value"):
                size.dim_param = "batch"


def _rename_all(graph: Any, names: dict[str, str], nodes: Iterator[int]) -> None:
    """Renames a graph, and those of its loops, which may use its values."""
    for node in graph.node:
        node.name = f"{node.op_type}_{next(nodes)}"
        for name in [*node.input, *node.output]:
            # An empty name stands for an input that is left out.
            if name:
                names.setdefault(name, f"value_{len(names)}")
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = attribute.g
                for value in (*inner.input, *inner.output, *inner.initializer):
                    names.setdefault(value.name, f"value_{len(names)}")
                _rename_all(inner, names, nodes)
                inner.name = f"{node.name}_{attribute.name}"
    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            value.name = names.get(value.name, value.name)
    graph.doc_string = ""
    # Shapes of inner values repeat what ONNX infers, in an order of their own.
    del graph.value_info[:]
    initializers = sorted(graph.initializer, key=lambda value: (len(value.name), value.name))
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def open_file(path: Path, threads: int) -> Runtime:
    """Opens an `.onnx` file."""
    return OnnxRuntime(path, threads)


class OnnxRuntime(Runtime):
    """An ONNX model with any number of inputs and outputs.

    Args:
        path: An `.onnx` file.
        threads: Threads of the single-image call; `predict` uses as many as there are cores.

    Raises:
        TfpruneError: The file is damaged.
    """

    format = "onnx"

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.name = path.name
        self.threads = threads
        self._path = path
        self._session = _session(path)
        ends = (self._session.get_inputs(), self._session.get_outputs())
        if not all(end.shape for end in ends[0]):
            raise TfpruneError(f"{path} does not say its input's shape: export it with one")
        self.inputs, self.outputs = (
            tuple(described(each.name, each.shape, _dtype(each)) for each in end) for end in ends
        )
        self._file = OnnxFile(path)

    def weights(self) -> Iterator[StoredWeights]:
        """The graph's initializers of float numbers."""
        return self._file.constants()

    def macs(self) -> int | None:
        """Counted in the graph's operators."""
        return self._file.macs()

    def _run(self, feeds: Feeds) -> Feeds:
        found = self._call(self._session, self._cast(feeds))
        return {
            each.name: y.astype(np.float32) for each, y in zip(self.outputs, found, strict=True)
        }

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        session, x = _session(self._path, self.threads), self._cast(feeds)
        return lambda: self._call(session, x)[0]

    def _cast(self, feeds: Feeds) -> Feeds:
        return {each.name: feeds[each.name].astype(each.dtype, copy=False) for each in self.inputs}

    def _call(self, session: Any, feeds: Feeds) -> list[np.ndarray]:
        try:
            return list(session.run(None, feeds))
        except Exception as error:
            raise TfpruneError(
                f"{self._path} cannot be run by ONNX Runtime ({one_line(error)}): export it again"
            ) from error


def _session(path: Path, threads: int = 0) -> Any:
    """An inference session on the CPU.

    Args:
        path: An `.onnx` file.
        threads: Threads of one call; 0 means that ONNX Runtime chooses.

    Raises:
        TfpruneError: The file is damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Errors are raised as well; its log would stand between ours.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # Its errors share no class but Exception.
    except Exception as error:
        raise TfpruneError(
            f"{path} cannot be loaded as ONNX ({one_line(error)}): export it again"
        ) from error


def _dtype(end: Any) -> str:
    """NumPy's name for the dtype of an input or output of a session.

    Args:
        end: One of `get_inputs()` or `get_outputs()`.
    """
    # ONNX writes "tensor(float)", and all but its floats as NumPy does.
    word = end.type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(word, word)


class OnnxFile:
    """An ONNX graph that its runtime has loaded.

    Args:
        path: The file.

    Raises:
        TfpruneError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            model = onnx.load(path)
            for value in model.graph.input:
                # A reshape may join batch and positions: only with one image are places counted.
                for size in value.type.tensor_type.shape.dim[:1]:
                    size.dim_value = 1
            self._graph = shape_inference.infer_shapes(model, data_prop=True).graph
        # protobuf and ONNX raise classes of their own.
        except Exception as error:
            raise TfpruneError(
                f"{path} cannot be read as ONNX ({one_line(error)}): export it again"
            ) from error

    def constants(self) -> Iterator[StoredWeights]:
        """Stored floats with an axis; single factors, shapes and whole numbers are not weights."""
        for tensor in self._graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim and np.issubdtype(values.dtype, np.floating):
                yield stored(tensor.name, values)

    def macs(self) -> int | None:
        """Multiply-accumulates of one example, of the operators that have a kernel.

        Returns:
            The count by the convention of `tfprune.macs`, or None where a shape is not known or
            an operator's work does not follow from its shapes.
        """
        shapes = self._shapes()
        kernels = {tensor.name: tuple(tensor.dims) for tensor in self._graph.initializer}
        total = 0
        for node in self._graph.node:
            if node.op_type in _UNKNOWN:
                return None
            if node.op_type not in _AT_OUTPUTS | _AT_INPUTS | _ON_ROWS:
                continue
            kernel = kernels.get(node.input[1])
            if kernel is None:
                return None
            at = shapes.get(node.output[0] if node.op_type in _AT_OUTPUTS else node.input[0])
            # (batch, channels, *positions), or (*positions, features).
            places = at and (at[:-1] if node.op_type in _ON_ROWS else at[2:])
            if places is None:
                return None
            known = [place for place in places if place is not None]
            if len(known) < len(places):
                return None
            total += math.prod(known) * math.prod(kernel)
        return total

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        graph = self._graph
        return {
            value.name: _shape(value)
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
        }


def _shape(value: Any) -> tuple[int | None, ...]:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
