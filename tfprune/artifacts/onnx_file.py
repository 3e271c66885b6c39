"""Writes an ONNX file with Keras' own exporter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.artifacts.savedmodel import flattened, layers_in, plain_names, tensor_names
from tfprune.errors import TfpruneError
from tfprune.model.graph import named_layers
from tfprune.quiet import quiet


def write_onnx(model: keras.Model, path: Path) -> None:
    """Exports to ONNX through tf2onnx.

    Of a model with loops, such as a SimpleRNN's, the same weights may give other bytes: tf2onnx
    orders the nodes in a loop as it likes.

    Args:
        model: A finished model.
        path: Where to.

    Raises:
        TfpruneError: ONNX has no operator for what a layer computes.
    """
    import onnx

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
