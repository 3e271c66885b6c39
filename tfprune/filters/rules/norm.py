"""Layers that scale and shift channels, by numbers learned or by statistics of the moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale

from tfprune.filters.channels import Channels, Trace, float_values
from tfprune.filters.rules.arguments import axes_from_front
from tfprune.filters.rules.linear import tied
from tfprune.filters.rules.registry import channel_rule, refuse


@channel_rule(layers.BatchNormalization)
def batch_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is scaled and shifted alone; where gamma is zero only beta is left.

    Along an axis other than the channels' every channel gets the same, and none is told from
    others.
    """
    (axis,) = axes_from_front(layer.axis, len(x.shape))
    if x.axis not in (None, axis):
        return trace.passed(x.varying())
    x = trace.along(x, axis)
    mean, variance = float_values(layer.moving_mean), float_values(layer.moving_variance)
    gamma, beta = np.ones(len(x)), np.zeros(len(x))
    if layer.scale:
        gamma = float_values(layer.gamma)
        trace.normalize(x)
        trace.weight(layer.gamma, 0, x, "scale")
    if layer.center:
        beta = float_values(layer.beta)
        trace.weight(layer.beta, 0, x, "scale")
    trace.weight(layer.moving_mean, 0, x, "state")
    trace.weight(layer.moving_variance, 0, x, "state")
    scaled = (x.constant - mean) / np.sqrt(variance + layer.epsilon) * gamma
    return trace.passed(replace(x, constant=np.where(gamma == 0, 0.0, scaled) + beta))


def _over_axes(trace: Trace, layer: Any, x: Channels, gamma: Any, beta: Any) -> Channels:
    """Normalised over some axes of each example, then scaled and shifted along the same axes."""
    axes = axes_from_front(layer.axis, len(x.shape))
    if x.axis not in axes:
        return trace.passed(x.varying())
    trace.inexact(x, f"{layer.name} normalises over all channels")
    for variable in (gamma, beta):
        if variable is not None:
            trace.weight(variable, axes.index(x.axis), x, "scale")
    return trace.passed(x.varying())


@channel_rule(layers.LayerNormalization)
def layer_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Mean and variance are taken over the channels, so a channel that goes is missed there."""
    return _over_axes(trace, layer, x, layer.gamma, layer.beta)


@channel_rule(layers.RMSNormalization)
def rms_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The mean square is taken over the channels."""
    return _over_axes(trace, layer, x, layer.scale, None)


@channel_rule(layers.UnitNormalization)
def unit_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """The length is taken over the channels; there are no weights."""
    return _over_axes(trace, layer, x, None, None)


@channel_rule(layers.GroupNormalization)
def group_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Statistics are a group's own, so whole groups go, which is exact.

    A single group is a layer normalisation over everything: there a channel goes, inexactly.
    """
    (axis,) = axes_from_front(layer.axis, len(x.shape))
    x = trace.along(x, axis)
    if layer.groups == 1:
        trace.inexact(x, f"{layer.name} normalises over all channels")
        constant = np.full(len(x), np.nan)
    else:
        trace.number("groups", tied(trace, x, layer.groups, whole=True))
        gamma = float_values(layer.gamma) if layer.scale else np.ones(len(x))
        beta = float_values(layer.beta) if layer.center else np.zeros(len(x))
        # A group of zeros has the mean zero.
        groups = x.constant.reshape(layer.groups, -1)
        silent = np.repeat((groups == 0).all(axis=1), groups.shape[1]) | (gamma == 0)
        constant = np.where(silent, beta, np.nan)
    for variable in (layer.gamma, layer.beta):
        if variable is not None:
            trace.weight(variable, 0, x, "scale")
    return trace.passed(replace(x, constant=constant))


@channel_rule(layers.Normalization)
def normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is shifted and scaled by its own statistics, adapted or written down."""
    if x.axis is None or x.axis not in layer._keep_axis:
        return trace.passed(x.varying())
    place = layer._keep_axis.index(x.axis)
    if layer.input_mean is None:
        trace.weight(layer.adapt_mean, place, x, "state")
        trace.weight(layer.adapt_variance, place, x, "state")
    elif len(layer._keep_axis) > 1:
        return refuse(trace, "has numbers along several axes", x)[0]
    else:
        trace.listed("mean", x)
        trace.listed("variance", x)
    return trace.passed(x.varying())


@channel_rule(layers.Rescaling)
def rescaling(trace: Trace, layer: Any, x: Channels) -> Channels:
    """A number for all channels, or a list with one for each."""
    if x.axis is None:
        return trace.passed(x)
    sizes = {np.shape(numbers) for numbers in (layer.scale, layer.offset)} - {(), (1,)}
    if sizes:
        last = keras.config.image_data_format() == "channels_last"
        if not last or x.axis != len(x.shape) - 1 or sizes != {(len(x),)}:
            return refuse(trace, "has numbers along other axes than the channels'", x)[0]
        trace.listed("scale", x)
        trace.listed("offset", x)
    scale, offset = (np.asarray(numbers, np.float64) for numbers in (layer.scale, layer.offset))
    return trace.passed(replace(x, constant=x.constant * scale + offset))


@channel_rule(LayerScale)
def layer_scale(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is scaled alone, along the last axis."""
    x = trace.along(x, -1)
    gamma = float_values(layer.gamma)
    trace.weight(layer.gamma, 0, x, "scale")
    trace.number("projection_dim", x)
    # Zero times something that varies is still zero.
    return trace.passed(replace(x, constant=np.where(gamma == 0, 0.0, x.constant * gamma)))
