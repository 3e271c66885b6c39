"""Layers that wrap another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules.registry import channel_rule, rule_for
from tfprune.model.counting import one_step
from tfprune.model.graph import Call, is_graph


@channel_rule(layers.TimeDistributed)
def time_distributed(trace: Trace, layer: Any, x: Channels) -> Channels:
    """What the wrapped layer does, at every step alike."""
    inner = layer.layer
    outputs = trace.call.outputs
    if x.axis == 1 or is_graph(inner) or len(outputs) > 1:
        what = "its steps" if x.axis == 1 else f"its {type(inner).__name__}"
        trace.freeze(x, f"{layer.name} hides them in {what}")
        return trace.opaque(outputs[0].shape)
    call = Call(
        inner,
        (one_step(trace.call.inputs[0]),),
        (one_step(outputs[0]),),
    )
    shape = (x.shape[0], *x.shape[2:])
    one = replace(x, shape=shape, axis=None if x.axis is None else x.axis - 1)
    with trace.within(call, "layer", "config"):
        answer = rule_for(inner)(trace, inner, one)
    (made,) = [answer] if isinstance(answer, Channels) else answer
    axis = None if made.axis is None else made.axis + 1
    return replace(made, shape=tuple(outputs[0].shape), axis=axis)
