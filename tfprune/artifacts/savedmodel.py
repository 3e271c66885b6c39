"""Writes a SavedModel, the same bytes for the same model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from tfprune.measure.savedmodel_runtime import SIGNATURE
from tfprune.model.graph import functional, named_layers
from tfprune.quiet import quiet

# What serving clients call a single input and output.
INPUT_NAME = "image"
OUTPUT_NAME = "output_0"
# TensorFlow numbers the functions it traces, and what they capture, through the process.
_NUMBERED = re.compile(r'(__inference_\w*?_|_user_specified_name"\s+value \{\s+s: ")(\d+)\b')


class _Served(tf.Module):
    """What the SavedModel holds: the weights in the model's order, and the call.

    `model.export` lists variables in the order of a set, which differs from export to export,
    and stores each name twice; otherwise this is what it writes.
    """

    def __init__(self, model: keras.Model, batch: int | None = None) -> None:
        super().__init__()
        inputs, outputs = tensor_names(model)
        specs = [
            tf.TensorSpec((x.shape[0] or batch, *x.shape[1:]), x.dtype, name=name)
            for x, name in zip(model.inputs, inputs, strict=True)
        ]
        self.weights = [weight.value for weight in model.weights]

        def serve(image: tf.Tensor) -> tf.Tensor:
            return model(image, training=False)

        flat = model if len(inputs) == len(outputs) == 1 else flattened(model)

        def serve_several(*images: tf.Tensor) -> dict[str, tf.Tensor]:
            return dict(zip(outputs, flat(list(images), training=False), strict=True))

        call = serve if flat is model else serve_several
        self.serve = tf.function(call, input_signature=specs)


def tensor_names(model: keras.Model) -> tuple[list[str], list[str]]:
    """What exported files call a model's inputs and outputs, in the model's order.

    Args:
        model: A Sequential or Functional model. One input is `image`, one output `output_0`, as
            serving clients expect; several go by the names that Keras knows them by.
    """
    inputs = [x.name for x in model.inputs] if len(model.inputs) > 1 else [INPUT_NAME]
    outputs = model.output_names if len(model.outputs) > 1 else [OUTPUT_NAME]
    return _distinct(inputs), _distinct(outputs)


def flattened(model: keras.Model) -> keras.Model:
    """The same graph, with a list in and a list out, however the model nests them."""
    return keras.Model(list(model.inputs), list(model.outputs))


def layers_in(model: keras.Model, names: Iterable[str]) -> str:
    """Words for the layers of a model that names of operations in its graph tell of.

    Args:
        model: A Sequential or Functional model.
        names: Such as `"functional/conv2d/convolution"`.

    Returns:
        Such as `" in layer 'conv2d'"`; empty where no name tells, as with raw operations.
    """
    parts = {part for name in names for part in name.split("/")}
    # Where a layer is called once more, TensorFlow counts behind its name.
    parts |= {re.sub(r"_\d+$", "", part) for part in parts}
    known = [path.split("/")[-1] for path in named_layers(model)]
    found = [f"'{name}'" for name in dict.fromkeys(known) if _plain(name) in parts]
    return f" in layer {' or '.join(found)}" if found else ""


@contextlib.contextmanager
def plain_names(model: keras.Model) -> Iterator[None]:
    """Lets a model and its layers have names that TensorFlow takes for scopes of a graph.

    Keras allows any, such as "模型" or "my model".

    Args:
        model: A Sequential or Functional model.
    """
    named = [model, *model._flatten_layers(include_self=False), *functional(model).operations]
    before = [(each, each.name) for each in named]
    for each, name in before:
        each.name = _plain(name)
    try:
        yield
    finally:
        for each, name in before:
            each.name = name


def _plain(name: str) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[:1].isalnum() else f"x{plain}"


def _distinct(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        # A serving signature's names are identifiers.
        clean = fresh = _plain(name)
        while fresh in found:
            fresh = f"{clean}_{len(found)}"
        found.append(fresh)
    return found


def write_saved_model(model: keras.Model, directory: Path, batch: int | None = None) -> None:
    """Saves the inference graph of a model, with the signature `serving_default`.

    Args:
        model: A finished model; see `tensor_names` for what its inputs and outputs are called.
        directory: Where to; it must not exist.
        batch: The only batch size that it takes, where the model takes any.
    """
    served = _Served(model, batch)
    with quiet(), plain_names(model):
        signature = served.serve.get_concrete_function()
        tf.saved_model.save(served, str(directory), {SIGNATURE: signature})
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
    # TensorFlow's fingerprint is a random uuid and checksums, which nothing needs for loading.
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
