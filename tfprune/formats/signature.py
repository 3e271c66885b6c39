"""What exported files call the inputs, outputs and layers of a Keras model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

import keras

from tfprune.formats.runtime import plain_name
from tfprune.model.graph import functional, named_layers
from tfprune.model.lookups import table_rows

# What serving clients call a single input and output.
INPUT_NAME = "image"
OUTPUT_NAME = "output_0"


def tensor_names(model: keras.Model) -> tuple[list[str], list[str]]:
    """What exported files call a model's inputs and outputs, in the model's order.

    Args:
        model: A Sequential or Functional model. One input is `image`, one output `output_0`, as
            serving clients expect; where there are several, they have their names in Keras.
    """
    inputs = [x.name for x in model.inputs] if len(model.inputs) > 1 else [INPUT_NAME]
    outputs = model.output_names if len(model.outputs) > 1 else [OUTPUT_NAME]
    return distinct(inputs), distinct(outputs)


def id_inputs(model: keras.Model) -> dict[str, int]:
    """The inputs that take row numbers of a table, by their exported names, and its rows.

    Args:
        model: A Sequential or Functional model.
    """
    rows = zip(tensor_names(model)[0], table_rows(model), strict=True)
    return {name: count for name, count in rows if count is not None}


def flattened(model: keras.Model, name: str | None = None) -> keras.Model:
    """The same graph, with a list in and a list out, however the model nests them.

    Args:
        model: A Sequential or Functional model.
        name: Of the new model; if None Keras counts, so that it differs from one to the next.
    """
    return keras.Model(list(model.inputs), list(model.outputs), name=name)


def layers_in(model: keras.Model, names: Iterable[str]) -> str:
    """The layers of a model that operations in its graph belong to, as words for a message.

    Args:
        model: A Sequential or Functional model.
        names: Such as `"functional/conv2d/convolution"`.

    Returns:
        Such as `" in layer 'conv2d'"`; empty where no layer has such a name.
    """
    parts = {part for name in names for part in name.split("/")}
    # Where a layer is called once more, TensorFlow counts behind its name.
    parts |= {re.sub(r"_\d+$", "", part) for part in parts}
    known = [path.split("/")[-1] for path in named_layers(model)]
    found = [f"'{name}'" for name in dict.fromkeys(known) if plain_name(name) in parts]
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
        each.name = plain_name(name)
    try:
        yield
    finally:
        for each, name in before:
            each.name = name


def distinct(names: list[str]) -> list[str]:
    """What exported files call several ends with these names.

    Example:
        >>> distinct(["left eye", "left_eye"])
        ['left_eye', 'left_eye_1']
    """
    found: list[str] = []
    for name in names:
        # A serving signature's names are identifiers.
        clean = fresh = plain_name(name)
        while fresh in found:
            fresh = f"{clean}_{len(found)}"
        found.append(fresh)
    return found
