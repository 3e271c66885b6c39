"""Layers in which a filter reads some of the channels only: grouped, depthwise, separable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import (
    activated,
    agreed,
    channel_axis,
    numpy,
    silent_or_constant,
)
from tfprune.filters.rules.registry import channel_rule


def filtered(trace: Trace, layer: Any, x: Channels, kernel: np.ndarray, bias: Any) -> Channels:
    """Each channel filtered alone, into several that go with it.

    Args:
        trace: what is recorded on.
        layer: the layer that filters.
        x: the channels along the layer's channel axis.
        kernel: float (..., channels, copies).
        bias: float (channels * copies,) or None.
    """
    copies = kernel.shape[-1]
    live = ((kernel != 0) & (x.constant != 0)[:, None]).any(axis=tuple(range(kernel.ndim - 2)))
    values = np.zeros(len(x) * copies) if bias is None else numpy(bias)
    shape = list(trace.call.outputs[0].shape)
    assert x.axis is not None
    shape[x.axis] = len(x) * copies
    return replace(
        x,
        shape=tuple(shape),
        ids=np.repeat(x.ids, copies),
        constant=np.where(live.reshape(-1), np.nan, values),
        linear=layer,
    )


@channel_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is filtered alone, into `depth_multiplier` channels that go with it."""
    x = trace.along(x, channel_axis(layer, len(x.shape)))
    made = filtered(trace, layer, x, numpy(layer.kernel), layer.bias if layer.use_bias else None)
    trace.weight(layer.kernel, -2, x, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    return activated(trace, layer.activation, made)


@channel_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable(trace: Trace, layer: Any, x: Channels) -> Channels:
    """A depthwise convolution whose channels a convolution of size 1 reads."""
    axis = channel_axis(layer, len(x.shape))
    x = trace.along(x, axis)
    between = filtered(trace, layer, x, numpy(layer.depthwise_kernel), None)
    bias = numpy(layer.bias) if layer.use_bias else None
    pointwise = numpy(layer.pointwise_kernel)
    made = trace.produce(axis, silent_or_constant(pointwise, bias, between.constant))
    trace.weight(layer.depthwise_kernel, -2, x, "filter")
    trace.weight(layer.pointwise_kernel, -2, between, "input")
    trace.weight(layer.pointwise_kernel, -1, made, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    trace.number("filters", made)
    return activated(trace, layer.activation, made)


def grouped(trace: Trace, layer: Any, x: Channels) -> Channels:
    """A convolution in groups, whose groups must stay equal in size.

    With one channel and one filter a group it is a depthwise convolution: groups go. Otherwise
    the channels at the same place of every group go together, on either side by itself.
    """
    x = trace.along(x, channel_axis(layer, len(x.shape)))
    if layer.groups == layer.filters == len(x):
        return _one_by_one(trace, layer, x)
    assert x.axis is not None
    count = layer.groups
    places = tied(trace, x, count)
    if len(places) == 1:
        trace.freeze(x, f"{layer.name} reads one of them in each of its {count} groups")
    kernel = np.split(numpy(layer.kernel), count, axis=-1)
    values = [
        silent_or_constant(part, None, constant)
        for part, constant in zip(kernel, np.split(x.constant, count), strict=True)
    ]
    bias = numpy(layer.bias) if layer.use_bias else 0.0
    made = trace.produce(x.axis, np.concatenate(values) + bias)
    tied(trace, made, count)
    trace.weight(layer.kernel, -2, places, "input")
    trace.weight(layer.kernel, -1, made, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    trace.number("filters", made)
    return activated(trace, layer.activation, made)


def _one_by_one(trace: Trace, layer: Any, x: Channels) -> Channels:
    kernel = np.swapaxes(numpy(layer.kernel), -1, -2)
    made = filtered(trace, layer, x, kernel, layer.bias if layer.use_bias else None)
    trace.weight(layer.kernel, -1, x, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, x, "filter")
    trace.number("filters", x)
    trace.number("groups", x)
    return activated(trace, layer.activation, made)


def tied(trace: Trace, x: Channels, groups: int) -> Channels:
    """Makes the channels at the same place of every group go together.

    Returns:
        The channels of one group, which stand for all, along the same axis of a tensor so small.
    """
    rows = x.ids.reshape(groups, -1)
    size = rows.shape[1]
    assert x.axis is not None
    shape = tuple(size if axis == x.axis else each for axis, each in enumerate(x.shape))
    first = Channels(shape, x.axis, rows[0], agreed(x.constant.reshape(groups, -1)))
    for row in rows[1:]:
        trace.unite(first, replace(first, ids=row))
    return first


def tied_within(trace: Trace, x: Channels, groups: int) -> Channels:
    """Makes all channels of a group go together.

    Returns:
        The first channel of every group, along the same axis of a tensor so small.
    """
    columns = x.ids.reshape(groups, -1).T
    assert x.axis is not None
    shape = tuple(groups if axis == x.axis else each for axis, each in enumerate(x.shape))
    first = Channels(shape, x.axis, columns[0], np.full(groups, np.nan))
    for column in columns[1:]:
        trace.unite(first, replace(first, ids=column))
    return first
