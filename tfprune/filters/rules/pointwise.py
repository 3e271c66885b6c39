"""Layers that treat every number, or every channel, by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import activated, mapped
from tfprune.filters.rules.registry import channel_rule


@channel_rule(layers.Activation)
def activation(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Whatever the named activation function does."""
    return activated(trace, layer.activation, trace.passed(x))


@channel_rule(layers.ReLU, layers.LeakyReLU, layers.ELU)
def activation_layer(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Activations that are layers act on each number alone."""
    return mapped(layer, trace.passed(x))


@channel_rule(layers.PReLU)
def prelu(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Slopes have the shape of an example, with size 1 where an axis shares them."""
    if x.axis is not None and x.axis not in (layer.shared_axes or ()):
        # Not "scale": what is positive passes whatever the slope is.
        trace.weight(layer.alpha, x.axis - 1, x, "state")
    positive = replace(x, constant=np.where(x.constant >= 0, x.constant, np.nan))
    return trace.passed(positive)


@channel_rule(layers.Softmax)
def softmax(trace: Trace, layer: Any, x: Channels, *masks: Channels) -> Channels:
    """Along the channels, the share of every one depends on all others."""
    for mask in masks:
        trace.freeze(mask, f"{layer.name} takes it for a mask")
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if x.axis in [axis % len(x.shape) for axis in axes]:
        trace.inexact(x, "softmax spreads over all channels")
    return trace.passed(x).varying()


@channel_rule(
    layers.Identity,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.ActivityRegularization,
)
def only_in_training(trace: Trace, layer: Any, x: Channels) -> Channels:
    """At inference these return their input."""
    return trace.passed(x)
