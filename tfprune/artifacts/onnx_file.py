"""Writes an ONNX file with Keras' own exporter, the same bytes for the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.artifacts.savedmodel import flattened, tensor_names
from tfprune.graph import named_layers
from tfprune.quiet import quiet


def write_onnx(model: keras.Model, path: Path) -> None:
    """Exports to ONNX through tf2onnx.

    Args:
        model: A finished model.
        path: Where to.
    """
    import onnx

    flat = flattened(model)
    with quiet(), _constants_as_arrays(model):
        # Keras exports only what was called before; any size will do.
        shapes = [(x.shape[0] or 1, *(size or 32 for size in x.shape[1:])) for x in flat.inputs]
        flat([np.zeros(s, x.dtype) for s, x in zip(shapes, flat.inputs, strict=True)])
        flat.export(str(path), format="onnx", verbose=False)
    proto = onnx.load(path)
    _rename(proto.graph, *tensor_names(model))
    path.write_bytes(proto.SerializeToString(deterministic=True))


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
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
        for name in [*node.input, *node.output]:
            # An empty name stands for an input that is left out.
            if name:
                names.setdefault(name, f"value_{len(names)}")
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            value.name = names.get(value.name, value.name)
    for value in [*graph.input, *graph.output]:
        for size in value.type.tensor_type.shape.dim[:1]:
            if not size.HasField("dim_value"):
                size.dim_param = "batch"
    graph.doc_string = ""
    # Shapes of inner values repeat what ONNX infers, in an order of their own.
    del graph.value_info[:]
    initializers = sorted(graph.initializer, key=lambda value: (len(value.name), value.name))
    del graph.initializer[:]
    graph.initializer.extend(initializers)
