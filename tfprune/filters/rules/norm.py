"""Layers that scale and shift channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import numpy
from tfprune.filters.rules.registry import channel_rule, unknown


@channel_rule(layers.BatchNormalization)
def batch_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is scaled and shifted alone; where gamma is zero only beta is left."""
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    x = trace.along(x, axis)
    mean, variance = numpy(layer.moving_mean), numpy(layer.moving_variance)
    gamma, beta = np.ones(len(x)), np.zeros(len(x))
    if layer.scale:
        gamma = numpy(layer.gamma)
        trace.normalize(x)
        trace.weight(layer.gamma, 0, x, "scale")
    if layer.center:
        beta = numpy(layer.beta)
        trace.weight(layer.beta, 0, x, "scale")
    trace.weight(layer.moving_mean, 0, x, "state")
    trace.weight(layer.moving_variance, 0, x, "state")
    scaled = (x.constant - mean) / np.sqrt(variance + layer.epsilon) * gamma
    return trace.passed(replace(x, constant=np.where(gamma == 0, 0.0, scaled) + beta))


@channel_rule(layers.Rescaling)
def rescaling(trace: Trace, layer: Any, x: Channels) -> Channels:
    """A scalar passes every channel on; numbers per channel sit in a config nobody slices."""
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        if x.axis is None:
            return trace.passed(x)
        return unknown(trace, layer, x)[0]
    return trace.passed(replace(x, constant=x.constant * layer.scale + layer.offset))
