"""What sums weighted channels: dense layers and convolutions, grouped or not, and embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace, agreed, float_values
from tfprune.filters.rules.arguments import channel_axis, operations
from tfprune.filters.rules.elementwise import activated
from tfprune.filters.rules.registry import channel_rule, refuse, refusing
from tfprune.model.layer_table import (
    CONVOLUTIONS,
    DEPTHWISE_CONVOLUTIONS,
    LAYER_TABLE,
    SEPARABLE_CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
)


def silent_or_constant(kernel: np.ndarray, bias: np.ndarray | None, read: np.ndarray) -> np.ndarray:
    """Which outputs of a linear layer are constant.

    Args:
        kernel: float (..., inputs, outputs).
        bias: float (outputs,) or None.
        read: float (inputs,), the constant of each input channel, NaN where it varies.

    Returns:
        float (outputs,): the bias where no live weight meets a live input, else NaN. Inputs that
        are constant but not zero count as live: padding makes them vary at the borders.
    """
    live_inputs = (read != 0)[:, None]
    silent = ~((kernel != 0) & live_inputs).any(axis=tuple(range(kernel.ndim - 1)))
    values = np.zeros(kernel.shape[-1]) if bias is None else bias
    return np.where(silent, values, np.nan)


def _linear(trace: Trace, layer: Any, x: Channels, axis: int, size_key: str) -> Channels:
    """A layer with one kernel, which reads channels along `axis` and makes others there."""
    (row,) = LAYER_TABLE[type(layer)]
    assert row.inputs is not None
    x = trace.along(x, axis)
    bias = float_values(layer.bias) if layer.use_bias else None
    kernel = np.moveaxis(float_values(layer.kernel), (row.inputs, row.outputs), (-2, -1))
    made = trace.produce(axis, silent_or_constant(kernel, bias, x.constant))
    trace.weight(layer.kernel, row.inputs, x, "input")
    trace.weight(layer.kernel, row.outputs, made, "filter")
    return _filters_made(trace, layer, made, size_key)


def _filters_made(trace: Trace, layer: Any, made: Channels, size_key: str = "filters") -> Channels:
    """What a layer returns that has made channels: its bias and a config entry go with them."""
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    trace.number(size_key, made)
    return activated(trace, layer.activation, made)


@channel_rule(layers.Dense)
def dense(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Units are the channels; inputs of any rank are read along their last axis."""
    return _linear(trace, layer, x, len(x.shape) - 1, "units")


@channel_rule(*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)
def conv(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Filters are the channels."""
    if getattr(layer, "groups", 1) > 1:
        return grouped(trace, layer, x)
    return _linear(trace, layer, x, channel_axis(layer, len(x.shape)), "filters")


@channel_rule(layers.Embedding)
def embedding(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each output dimension is a channel; what comes in are indices, of which none may go."""
    trace.freeze(x, f"{layer.name} takes it for indices")
    table = float_values(layer.embeddings)
    made = trace.produce(-1, np.where((table == 0).all(axis=0), 0.0, np.nan))
    trace.weight(layer.embeddings, 1, made, "filter")
    trace.number("output_dim", made)
    return made


@channel_rule(layers.EinsumDense)
def einsum_dense(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Reads the channel axis where its kernel does, and makes channels on its last axis.

    Any other equation is frozen.
    """
    sources, result = layer.equation.split("->")
    source, weights = sources.split(",")
    other = f"computes {layer.equation}, which has no rule"
    if "." in layer.equation or (x.axis is None and source[-1] not in weights):
        return refuse(trace, other, x)[0]
    x = x if x.axis is not None else trace.along(x, -1)
    assert x.axis is not None
    read, last = source[x.axis], result[-1]
    if read in result or read not in weights or last in source or last not in weights:
        return refuse(trace, other, x)[0]
    kernel = float_values(layer.kernel)
    place = weights.index(last)
    silent = (kernel == 0).all(axis=tuple(k for k in range(kernel.ndim) if k != place))
    biased = layer.bias is not None
    # A bias along several axes is not one constant for a channel.
    made = trace.produce(-1, np.where(silent & (not biased), 0.0, np.nan))
    trace.weight(layer.kernel, weights.index(read), x, "input")
    trace.weight(layer.kernel, place, made, "filter")
    if biased:
        if last not in layer.bias_axes:
            return refuse(trace, other, x, made)[0]
        at = layer.bias_axes.index(last)
        trace.weight(layer.bias, at, made, "filter")
        flat = np.moveaxis(float_values(layer.bias), at, 0).reshape(len(made), -1)
        even = (flat == flat[:, :1]).all(axis=1) & silent
        made = replace(made, constant=np.where(even, flat[:, 0], np.nan))
    whole = isinstance(layer.partial_output_shape, int)
    trace.number("output_shape", made, None if whole else len(made.shape) - 2)
    return activated(trace, layer.activation, made)


channel_rule(layers.Dot)(refusing("multiplies and sums whole channel vectors"))
channel_rule(*operations(knp, "Matmul Dot Einsum Tensordot Inner Outer Vdot Cross Kron"))(
    refusing("sums products, in an order that no rule follows")
)


# -- filters that read some of the channels only --------------------------------------------------


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
    values = np.zeros(len(x) * copies) if bias is None else float_values(bias)
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


@channel_rule(*DEPTHWISE_CONVOLUTIONS)
def depthwise(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is filtered alone, into `depth_multiplier` channels that go with it."""
    x = trace.along(x, channel_axis(layer, len(x.shape)))
    made = filtered(
        trace, layer, x, float_values(layer.kernel), layer.bias if layer.use_bias else None
    )
    trace.weight(layer.kernel, -2, x, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, made, "filter")
    return activated(trace, layer.activation, made)


@channel_rule(*SEPARABLE_CONVOLUTIONS)
def separable(trace: Trace, layer: Any, x: Channels) -> Channels:
    """A depthwise convolution whose channels a convolution of size 1 reads."""
    axis = channel_axis(layer, len(x.shape))
    x = trace.along(x, axis)
    between = filtered(trace, layer, x, float_values(layer.depthwise_kernel), None)
    bias = float_values(layer.bias) if layer.use_bias else None
    pointwise = float_values(layer.pointwise_kernel)
    made = trace.produce(axis, silent_or_constant(pointwise, bias, between.constant))
    trace.weight(layer.depthwise_kernel, -2, x, "filter")
    trace.weight(layer.pointwise_kernel, -2, between, "input")
    trace.weight(layer.pointwise_kernel, -1, made, "filter")
    return _filters_made(trace, layer, made)


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
    kernel = np.split(float_values(layer.kernel), count, axis=-1)
    values = [
        silent_or_constant(part, None, constant)
        for part, constant in zip(kernel, np.split(x.constant, count), strict=True)
    ]
    bias = float_values(layer.bias) if layer.use_bias else 0.0
    made = trace.produce(x.axis, np.concatenate(values) + bias)
    tied(trace, made, count)
    trace.weight(layer.kernel, -2, places, "input")
    trace.weight(layer.kernel, -1, made, "filter")
    return _filters_made(trace, layer, made)


def _one_by_one(trace: Trace, layer: Any, x: Channels) -> Channels:
    kernel = np.swapaxes(float_values(layer.kernel), -1, -2)
    made = filtered(trace, layer, x, kernel, layer.bias if layer.use_bias else None)
    trace.weight(layer.kernel, -1, x, "filter")
    if layer.use_bias:
        trace.weight(layer.bias, 0, x, "filter")
    trace.number("filters", x)
    trace.number("groups", x)
    return activated(trace, layer.activation, made)


def tied(trace: Trace, x: Channels, groups: int, *, whole: bool = False) -> Channels:
    """Makes channels of the groups that a layer splits them into go together.

    Args:
        trace: what is recorded on.
        x: the channels along the layer's channel axis.
        groups: how many groups there are.
        whole: whether the channels of a group go together, which removes groups; otherwise those
            at the same place of every group do, which keeps the groups equal in size.

    Returns:
        One channel for all that go together, along the same axis of a tensor of that size.
    """
    assert x.axis is not None
    places = np.arange(len(x)).reshape(groups, -1)
    rows = places.T if whole else places
    first = replace(x.taken(rows[0]), constant=agreed(x.constant[rows]))
    for row in rows[1:]:
        trace.unite(first, x.taken(row))
    return first
