"""Layers that make channels: convolutions and dense layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import activated, channel_axis, numpy, silent_or_constant
from tfprune.filters.rules.registry import channel_rule


def _linear(trace: Trace, layer: Any, x: Channels, axis: int, size_key: str) -> Channels:
    x = trace.along(x, axis)
    bias = numpy(layer.bias) if layer.use_bias else None
    made = trace.produce(axis, silent_or_constant(numpy(layer.kernel), bias, x.constant))
    trace.weight(layer.kernel, -2, x, "input")
    trace.weight(layer.kernel, -1, made, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    trace.number(size_key, made)
    return activated(trace, layer.activation, made)


@channel_rule(layers.Dense)
def dense(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Units are the channels; inputs of any rank are read along their last axis."""
    return _linear(trace, layer, x, len(x.shape) - 1, "units")


@channel_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def conv(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Filters are the channels. Grouped convolutions are frozen on both sides."""
    axis = channel_axis(layer, len(x.shape))
    if layer.groups != 1:
        reason = f"{layer.name} is a convolution in {layer.groups} groups"
        trace.freeze(x, reason)
        made = trace.produce(axis)
        trace.freeze(made, reason)
        return made
    return _linear(trace, layer, x, axis, "filters")


@channel_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is filtered alone, into `depth_multiplier` channels that go with it."""
    x = trace.along(x, channel_axis(layer, len(x.shape)))
    copies = layer.depth_multiplier
    kernel = numpy(layer.kernel)
    bias = numpy(layer.bias) if layer.use_bias else np.zeros(len(x) * copies)
    live = ((kernel != 0) & (x.constant != 0)[:, None]).any(axis=tuple(range(kernel.ndim - 2)))
    made = replace(
        x,
        shape=tuple(trace.call.outputs[0].shape),
        ids=np.repeat(x.ids, copies),
        constant=np.where(live.reshape(-1), np.nan, bias),
        linear=layer,
    )
    trace.weight(layer.kernel, -2, x, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    return activated(trace, layer.activation, made)
