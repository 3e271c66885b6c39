"""Layers that make channels by weighted sums: dense layers, convolutions and embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import activated, channel_axis, numpy, silent_or_constant
from tfprune.filters.rules.grouped import grouped
from tfprune.filters.rules.registry import channel_rule


def _linear(
    trace: Trace, layer: Any, x: Channels, axis: int, size_key: str, transposed: bool = False
) -> Channels:
    x = trace.along(x, axis)
    bias = numpy(layer.bias) if layer.use_bias else None
    kernel = numpy(layer.kernel)
    if transposed:
        kernel = np.swapaxes(kernel, -1, -2)
    made = trace.produce(axis, silent_or_constant(kernel, bias, x.constant))
    trace.weight(layer.kernel, -1 if transposed else -2, x, "input")
    trace.weight(layer.kernel, -2 if transposed else -1, made, "filter")
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
    """Filters are the channels."""
    if layer.groups > 1:
        return grouped(trace, layer, x)
    return _linear(trace, layer, x, channel_axis(layer, len(x.shape)), "filters")


@channel_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def conv_transpose(trace: Trace, layer: Any, x: Channels) -> Channels:
    """As a convolution, but kernels are (..., filters, inputs)."""
    axis = channel_axis(layer, len(x.shape))
    return _linear(trace, layer, x, axis, "filters", transposed=True)


@channel_rule(layers.Embedding)
def embedding(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each output dimension is a channel; what comes in are indices, of which none may go."""
    trace.freeze(x, f"{layer.name} takes it for indices")
    table = numpy(layer.embeddings)
    made = trace.produce(-1, np.where((table == 0).all(axis=0), 0.0, np.nan))
    trace.weight(layer.embeddings, 1, made, "filter")
    trace.number("output_dim", made)
    return made
