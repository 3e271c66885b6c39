"""Inputs of a model that are row numbers of a table, such as the words of an Embedding."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfprune.model.graph import calls, functional, is_graph

# They move numbers and do not change them.
_PASSING = (
    layers.Concatenate,
    layers.Cropping1D,
    layers.Dropout,
    layers.Flatten,
    layers.Identity,
    layers.Masking,
    layers.Permute,
    layers.RepeatVector,
    layers.Reshape,
)
_PASSING_OPERATIONS = {
    "Cast",
    "Concatenate",
    "ExpandDims",
    "GetItem",
    "Ravel",
    "Reshape",
    "Slice",
    "Squeeze",
    "Stack",
    "Transpose",
}
# A batch of sequences. More axes than these make an image, even where a layer holds a table.
_SEQUENCES = 2


def table_rows(model: keras.Model) -> list[int | None]:
    """How many rows the table has that an input looks up; None for an input that looks up nothing.

    Example:
        ```python
        table_rows(model)  # [None, 1000]: an image, and words of a vocabulary of 1,000
        ```

    Args:
        model: a functional or built Sequential Keras model.

    Returns:
        One entry for each of `model.inputs`: the rows of the smallest table that its numbers reach
        unchanged.
    """
    return [_rows(model, x) for x in functional(model).inputs]


def _rows(model: keras.Model, tensor: keras.KerasTensor) -> int | None:
    """The rows of the smallest table that the numbers of a tensor of the graph reach."""
    found: list[int] = []
    reached = [tensor]
    # Producers come before consumers.
    for call in calls(model):
        places = [i for i, x in enumerate(call.inputs) if any(x is each for each in reached)]
        if not places:
            continue
        operation: Any = call.operation
        if is_graph(operation):
            inner = functional(operation).inputs
            found += [rows for i in places if (rows := _rows(operation, inner[i])) is not None]
        elif (rows := _own_rows(operation, call.inputs[places[0]])) is not None:
            found.append(rows)
        elif isinstance(operation, _PASSING) or _passes(operation):
            reached += call.outputs
    return min(found, default=None)


def _passes(operation: Any) -> bool:
    kind = type(operation)
    return ".ops." in kind.__module__ and kind.__name__ in _PASSING_OPERATIONS


def _own_rows(operation: Any, tensor: keras.KerasTensor) -> int | None:
    if isinstance(operation, layers.CategoryEncoding):
        return int(operation.num_tokens)
    if isinstance(operation, layers.Embedding):
        return int(operation.input_dim)
    if not isinstance(operation, keras.Layer) or isinstance(operation, _PASSING):
        return None
    if keras.backend.is_float_dtype(tensor.dtype) and len(tensor.shape) > _SEQUENCES:
        return None
    inner = operation._flatten_layers(include_self=False)
    tables = [each.input_dim for each in inner if isinstance(each, layers.Embedding)]
    return min(tables, default=None)
