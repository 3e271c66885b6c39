"""Models as one flat graph: nested models inlined, calls replaced by others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from tfprune.model.cloning import copy
from tfprune.model.graph import Call, calls, functional, is_graph

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

# What a separable convolution consists of.
SEPARABLE = {
    keras.layers.SeparableConv1D: (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    keras.layers.SeparableConv2D: (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}


def inlined(model: keras.Model) -> keras.Model:
    """A copy of a model whose nested models are parts of one graph.

    Args:
        model: a functional or built Sequential model.

    Returns:
        A functional model. A layer of a nested model keeps its name where no other has it; else the
        name of the nested model is put before it.
    """
    twin = copy(model)
    _make_names_unique(twin)
    return rebuilt(twin, lambda call, inputs: call.operation(*inputs[0], **inputs[1]), model.name)


def rebuilt(model: keras.Model, emit: Callable[[Call, Arguments], Any], name: str) -> keras.Model:
    """Makes a flat functional model from the calls of another one.

    Args:
        model: its layers go into the new model.
        emit: calls what stands in place of an operation, with the arguments of the call, in which
            the tensors are those of the new model.
        name: of the new model.

    Returns:
        The model, of copies of the layers.
    """
    known: dict[int, Any] = {}
    graph = functional(model)

    def fresh(x: Any) -> Any:
        made = keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name, sparse=x.sparse)
        known[id(x)] = made
        return made

    def replaced(tree: Any) -> Any:
        return keras.tree.map_structure(
            lambda x: known[id(x)] if isinstance(x, keras.KerasTensor) else x, tree
        )

    def run(part: keras.Model) -> None:
        for call in calls(part):
            if is_graph(call.operation):
                inner = functional(call.operation)
                for mine, given in zip(inner.inputs, call.inputs, strict=True):
                    known[id(mine)] = known[id(given)]
                run(call.operation)
                for outer, made in zip(call.outputs, inner.outputs, strict=True):
                    known[id(outer)] = known[id(made)]
                continue
            arguments = (replaced(tuple(call.args)), replaced(dict(call.kwargs)))
            made = keras.tree.flatten(emit(call, arguments))
            for mine, new in zip(call.outputs, made, strict=True):
                known[id(mine)] = new

    inputs = keras.tree.map_structure(fresh, graph._inputs_struct)
    run(graph)
    outputs = keras.tree.map_structure(lambda x: known[id(x)], graph._outputs_struct)
    return with_output_names(keras.Model(inputs, outputs, name=name), graph.output_names)


def separated(layer: Any) -> list[keras.Layer]:
    """A depthwise convolution, and one of size 1, that compute what a separable one does.

    Args:
        layer: of a type of `SEPARABLE`, built.

    Returns:
        Two new layers with its weights, in their order.
    """
    shared = {"data_format": layer.data_format, "dtype": layer.dtype_policy}
    depthwise, pointwise = SEPARABLE[type(layer)]
    first = depthwise(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        trainable=layer.trainable,
        **shared,
    )
    second = pointwise(
        layer.filters,
        1,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        trainable=layer.trainable,
        **shared,
    )
    rank = len(layer.kernel_size)
    channels, multiplier = layer.depthwise_kernel.shape[-2:]
    first.build((None, *[None] * rank, channels))
    second.build((None, *[None] * rank, channels * multiplier))
    first.set_weights([np.asarray(layer.depthwise_kernel)])
    second.set_weights([np.asarray(each) for each in layer.weights[1:]])
    return [first, second]


def _make_names_unique(model: keras.Model) -> None:
    """Puts the name of a nested model before the names in it that are taken."""
    seen = {id(operation) for operation in functional(model).operations}
    taken = {operation.name for operation in functional(model).operations}

    def rename(part: keras.Model, prefix: str) -> None:
        for operation in functional(part).operations:
            if is_graph(operation):
                rename(operation, f"{prefix}{operation.name}_")
            elif id(operation) not in seen:
                seen.add(id(operation))
                if operation.name in taken:
                    operation.name = unused_name(f"{prefix}{operation.name}", taken)
                taken.add(operation.name)

    rename(model, "")


def unused_name(name: str, taken: Container[str]) -> str:
    """A name that is not taken, with a number behind it where it must be."""
    fresh, count = name, 1
    while fresh in taken:
        fresh, count = f"{name}_{count}", count + 1
    return fresh


def with_output_names(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """A copy of a model whose outputs have other names, by which losses and files know them.

    Args:
        model: a flat functional model; its layers get other names.
        names: of its outputs, in order. A single output is known by its place.
    """
    outputs = keras.tree.flatten(model._outputs_struct)
    if len(outputs) == 1:
        return copy(model)
    operations = {operation.name: operation for operation in functional(model).operations}
    used = Counter(id(call.operation) for call in calls(model))
    taken: set[int] = set()
    for place, name in enumerate(names):
        operation = outputs[place]._keras_history.operation
        if id(operation) in taken or used[id(operation)] > 1:
            # What makes another tensor as well cannot have the name of this one.
            operation = keras.layers.Identity()
            outputs[place] = operation(outputs[place])
        taken.add(id(operation))
        former = operations.get(name)
        if former is not None and former is not operation:
            former.name = unused_name(f"{name}_inner", operations)
        operation.name = name
    structure = keras.tree.pack_sequence_as(model._outputs_struct, outputs)
    return copy(keras.Model(model._inputs_struct, structure, name=model.name))
