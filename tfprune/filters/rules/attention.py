"""Attention layers: what they read and give is sliced; their heads stay whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import activated, numpy
from tfprune.filters.rules.registry import channel_rule, frozen


@channel_rule(layers.MultiHeadAttention)
def attention(trace: Trace, layer: Any, *inputs: Channels) -> Sequence[Channels]:
    """Query, key and value kernels read channels; the output kernel makes as many as the query.

    A layer with an output shape of its own makes that many instead.
    """
    given = _named(trace, inputs)
    if given is None:
        return frozen(trace, "is called with more than query, value and key", *inputs)
    if len(getattr(layer, "_output_shape", None) or (0,)) > 1:
        return frozen(trace, "gives several axes", *inputs)
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
    kernel, bias = numpy(output.kernel), numpy(output.bias) if output.bias is not None else 0.0
    silent = (kernel == 0).all(axis=tuple(range(kernel.ndim - 1)))
    made = trace.produce(-1, np.where(silent, bias, np.nan))
    trace.weight(output.kernel, -1, made, "filter")
    if output.bias is not None:
        trace.weight(output.bias, -1, made, "filter")
    if getattr(layer, "_output_shape", None):
        trace.number("output_shape", made, 0)
    else:
        trace.unite(made, given["query"])
    # Whoever asks for the scores gets one more output, which has no channels.
    return [made, *(trace.opaque(each.shape) for each in trace.call.outputs[1:])]


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
    found = {
        name: values[id(given[name])]
        for name in ("query", "value", "key")
        if id(given.get(name)) in values
    }
    if "value" in found:
        found.setdefault("key", found["value"])
    known = {id(given.get(name)) for name in found}
    return found if len(found) == 3 and values.keys() <= known else None


@channel_rule(layers.EinsumDense)
def einsum_dense(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Reads the channel axis where its kernel does, and makes channels on its last axis.

    Any other equation is frozen.
    """
    sources, result = layer.equation.split("->")
    source, weights = sources.split(",")
    other = f"computes {layer.equation}, which has no rule"
    if "." in layer.equation or (x.axis is None and source[-1] not in weights):
        return frozen(trace, other, x)[0]
    x = x if x.axis is not None else trace.along(x, -1)
    assert x.axis is not None
    read, last = source[x.axis], result[-1]
    if read in result or read not in weights or last in source or last not in weights:
        return frozen(trace, other, x)[0]
    kernel = numpy(layer.kernel)
    place = weights.index(last)
    silent = (kernel == 0).all(axis=tuple(k for k in range(kernel.ndim) if k != place))
    biased = layer.bias is not None
    # A bias along several axes is no constant of a channel.
    made = trace.produce(-1, np.where(silent & (not biased), 0.0, np.nan))
    trace.weight(layer.kernel, weights.index(read), x, "input")
    trace.weight(layer.kernel, place, made, "filter")
    if biased:
        if last not in layer.bias_axes:
            return frozen(trace, other, x, made)[0]
        at = layer.bias_axes.index(last)
        trace.weight(layer.bias, at, made, "filter")
        flat = np.moveaxis(numpy(layer.bias), at, 0).reshape(len(made), -1)
        even = (flat == flat[:, :1]).all(axis=1) & silent
        made = replace(made, constant=np.where(even, flat[:, 0], np.nan))
    whole = isinstance(layer.partial_output_shape, int)
    trace.number("output_shape", made, None if whole else len(made.shape) - 2)
    return activated(trace, layer.activation, made)
