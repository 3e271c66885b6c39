"""Walks a model with channel ids in place of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules import rule_for
from tfprune.model.graph import Call, calls, functional, graph_at_each_step, is_graph


def trace(model: keras.Model) -> Trace:
    """Follows every channel of a model from where it is made to where it is read.

    Args:
        model: a functional or built Sequential Keras model, nested to any depth.

    Returns:
        What the rules of all its layers recorded.

    Raises:
        UsageError: the model is subclassed or not built.
    """
    record = Trace()
    inputs = [record.opaque(each.shape) for each in functional(model).inputs]
    for channels in follow(record, model, inputs):
        record.freeze(channels, "it is an output of the model")
    return record


def follow(record: Trace, model: keras.Model, inputs: Sequence[Channels]) -> list[Channels]:
    """Follows given channels through a model.

    Args:
        record: what the rules of its layers write to.
        model: a functional or built Sequential Keras model.
        inputs: the channels of each of its inputs.

    Returns:
        The channels of each of its outputs.
    """
    graph = functional(model)
    values = {id(tensor): each for tensor, each in zip(graph.inputs, inputs, strict=True)}
    for call in map(_unmasked, calls(model)):
        arguments = [values[id(tensor)] for tensor in call.inputs]
        record.call = call
        if is_graph(call.operation):
            results = _entered(record, call.operation, arguments)
        elif (inner := graph_at_each_step(call.operation)) and arguments[0].axis != 1:
            results = [
                _at_all_steps(each, tensor.shape)
                for each, tensor in zip(
                    _entered(record, inner, [_at_one_step(each) for each in arguments]),
                    call.outputs,
                    strict=True,
                )
            ]
        else:
            answer = rule_for(call.operation)(record, call.operation, *arguments)
            results = [answer] if isinstance(answer, Channels) else list(answer)
        for tensor, each in zip(call.outputs, results, strict=True):
            values[id(tensor)] = each
    return [values[id(tensor)] for tensor in graph.outputs]


def _entered(record: Trace, model: keras.Model, arguments: Sequence[Channels]) -> list[Channels]:
    """Follows channels through a model that is called within another one."""
    entries = zip(functional(model).inputs, arguments, strict=True)
    return follow(record, model, [record.entered(tensor, each) for tensor, each in entries])


def _at_one_step(channels: Channels) -> Channels:
    axis = None if channels.axis is None else channels.axis - 1
    return replace(channels, shape=(channels.shape[0], *channels.shape[2:]), axis=axis)


def _at_all_steps(channels: Channels, shape: Sequence[int | None]) -> Channels:
    axis = None if channels.axis is None else channels.axis + 1
    return replace(channels, shape=tuple(shape), axis=axis, linear=None)


def _unmasked(call: Call) -> Call:
    """The call without its masks, which Keras adds to the arguments by itself.

    A mask says which steps count and has no channels.
    """
    kwargs = {key: each for key, each in call.kwargs.items() if not key.endswith("mask")}
    if len(kwargs) == len(call.kwargs):
        return call
    given = keras.tree.flatten((call.args, kwargs))
    tensors = tuple(each for each in given if isinstance(each, keras.KerasTensor))
    return replace(call, inputs=tensors, kwargs=kwargs)
