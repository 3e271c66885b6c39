"""Layers that models of `keras.applications` bring along."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

# Keras has no public names for these; importing Keras imports them all the same.
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import numpy
from tfprune.filters.rules.merge import met
from tfprune.filters.rules.pointwise import only_in_training
from tfprune.filters.rules.registry import channel_rule

channel_rule(StochasticDepth)(only_in_training)


@channel_rule(LayerScale)
def layer_scale(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel is scaled alone, along the last axis."""
    x = trace.along(x, -1)
    gamma = numpy(layer.gamma)
    trace.weight(layer.gamma, 0, x, "scale")
    trace.number("projection_dim", x)
    # Zero times something that varies is still zero.
    return trace.passed(replace(x, constant=np.where(gamma == 0, 0.0, x.constant * gamma)))


@channel_rule(CustomScaleLayer)
def custom_scale(trace: Trace, layer: Any, *inputs: Channels) -> Channels:
    """A shortcut plus a residual times one number."""
    return met(trace, lambda values: values[0] + values[1] * layer.scale, *inputs)
