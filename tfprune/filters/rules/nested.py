"""Models and layers inside others: a model walked with channel ids in place of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules.registry import channel_rule, refuse, refusing, rule_for
from tfprune.model.counting import one_step
from tfprune.model.graph import Call, calls, functional, graph_at_each_step, is_graph


def follow(trace: Trace, model: keras.Model, inputs: Sequence[Channels]) -> list[Channels]:
    """Follows given channels through a model.

    Args:
        trace: what the rules of its layers record on.
        model: a functional or built Sequential Keras model.
        inputs: the channels of each of its inputs.

    Returns:
        The channels of each of its outputs.
    """
    graph = functional(model)
    known = {id(tensor): x for tensor, x in zip(graph.inputs, inputs, strict=True)}
    for call in map(_unmasked, calls(model)):
        trace.call = call
        rule = nested_model if is_graph(call.operation) else rule_for(call.operation)
        result = rule(trace, call.operation, *[known[id(tensor)] for tensor in call.inputs])
        results = [result] if isinstance(result, Channels) else result
        for tensor, x in zip(call.outputs, results, strict=True):
            known[id(tensor)] = x
    return [known[id(tensor)] for tensor in graph.outputs]


def _unmasked(call: Call) -> Call:
    """The call without its masks, which Keras adds to the arguments by itself.

    A mask says which steps count and has no channels.
    """
    kwargs = {key: value for key, value in call.kwargs.items() if not key.endswith("mask")}
    if len(kwargs) == len(call.kwargs):
        return call
    given = keras.tree.flatten((call.args, kwargs))
    tensors = tuple(value for value in given if isinstance(value, keras.KerasTensor))
    return replace(call, inputs=tensors, kwargs=kwargs)


def nested_model(trace: Trace, model: keras.Model, *inputs: Channels) -> list[Channels]:
    """Does what its layers do."""
    entries = zip(functional(model).inputs, inputs, strict=True)
    return follow(trace, model, [trace.entered(tensor, x) for tensor, x in entries])


@channel_rule(layers.TimeDistributed)
def time_distributed(trace: Trace, layer: Any, *inputs: Channels) -> Sequence[Channels]:
    """Does what the wrapped layer or model does, at every step alike."""
    inner, outputs = layer.layer, trace.call.outputs
    if any(x.axis == 1 for x in inputs):
        return refuse(trace, "hides them in its steps", *inputs)
    graph = None if trace.wrapped else graph_at_each_step(layer)
    if graph is None and (is_graph(inner) or len(outputs) > 1):
        return refuse(trace, f"hides them in its {type(inner).__name__}", *inputs)
    given = [x.at_one_step() for x in inputs]
    if graph is not None:
        results = [replace(x, linear=None) for x in nested_model(trace, graph, *given)]
    else:
        call = Call(inner, tuple(map(one_step, trace.call.inputs)), tuple(map(one_step, outputs)))
        with trace.within(call, "layer", "config"):
            result = rule_for(inner)(trace, inner, *given)
        results = [result] if isinstance(result, Channels) else list(result)
    pairs = zip(results, outputs, strict=True)
    return [x.at_all_steps(tuple(tensor.shape)) for x, tensor in pairs]


channel_rule(layers.Lambda)(refusing("is a Lambda, whose function nobody can look into"))
channel_rule(layers.SpectralNormalization)(
    refusing("divides a kernel by a norm of all its filters")
)
