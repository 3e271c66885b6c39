"""Layers that treat every number, or every channel, by itself."""

from __future__ import annotations

from typing import Any

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


@channel_rule(layers.Softmax)
def softmax(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The share of every channel depends on all others."""
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
