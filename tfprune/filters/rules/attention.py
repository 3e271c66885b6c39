"""Attention layers: what they read and give is sliced; their heads stay whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace, float_values
from tfprune.filters.rules.registry import channel_rule, refuse, refusing


@channel_rule(layers.MultiHeadAttention)
def attention(trace: Trace, layer: Any, *inputs: Channels) -> Sequence[Channels]:
    """Query, key and value kernels read channels; the output kernel makes as many as the query.

    A layer with an output shape of its own makes that many instead.
    """
    given = _named(trace, inputs)
    if given is None:
        return refuse(trace, "is called with more than query, value and key", *inputs)
    if len(getattr(layer, "_output_shape", None) or (0,)) > 1:
        return refuse(trace, "gives several axes", *inputs)
    for role, dense in (
        ("query", layer._query_dense),
        ("key", layer._key_dense),
        ("value", layer._value_dense),
        ("query", getattr(layer, "_gate_dense", None)),
    ):
        if dense is not None:
            x = given[role] = trace.along(given[role], -1)
            trace.weight(dense.kernel, 0, x, "input")
    output = layer._output_dense
    kernel, bias = (
        float_values(output.kernel),
        float_values(output.bias) if output.bias is not None else 0.0,
    )
    silent = (kernel == 0).all(axis=tuple(range(kernel.ndim - 1)))
    made = trace.produce(-1, np.where(silent, bias, np.nan))
    trace.weight(output.kernel, -1, made, "filter")
    if output.bias is not None:
        trace.weight(output.bias, -1, made, "filter")
    if getattr(layer, "_output_shape", None):
        trace.number("output_shape", made, 0)
    else:
        trace.unite(made, given["query"])
    # With the scores there is one more output, which has no channels.
    return [made, *(trace.opaque(tensor.shape) for tensor in trace.call.outputs[1:])]


@channel_rule(layers.GroupQueryAttention)
def grouped_query_attention(trace: Trace, layer: Any, *inputs: Channels) -> Sequence[Channels]:
    """As a multi-head attention, but Keras wants query and value to be of one size."""
    given = _named(trace, inputs)
    if given is not None:
        trace.unite(trace.along(given["query"], -1), trace.along(given["value"], -1))
    return attention(trace, layer, *inputs)


def _named(trace: Trace, inputs: Sequence[Channels]) -> dict[str, Channels] | None:
    """What was given as query, value and key; None where that is not clear."""
    values = {id(tensor): each for tensor, each in zip(trace.call.inputs, inputs, strict=True)}
    given: Mapping[str, Any] = {
        **dict(zip(("query", "value", "key"), trace.call.args, strict=False)),
        **trace.call.kwargs,
    }
    roles = {
        name: values[id(given[name])]
        for name in ("query", "value", "key")
        if id(given.get(name)) in values
    }
    if "value" in roles:
        roles.setdefault("key", roles["value"])
    known = {id(given.get(name)) for name in roles}
    return roles if len(roles) == 3 and values.keys() <= known else None


channel_rule(layers.Attention, layers.AdditiveAttention)(
    refusing("compares whole channel vectors with each other")
)
