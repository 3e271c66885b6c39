"""Layers that move, pool or reshape what is not the channel axis, and Flatten."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import channel_axis
from tfprune.filters.rules.registry import channel_rule


def _ranks(*names: str) -> list[type]:
    found = [getattr(layers, f"{name}{rank}D", None) for name in names for rank in (1, 2, 3)]
    return [each for each in found if each is not None]


@channel_rule(*_ranks("MaxPooling", "AveragePooling", "Cropping", "UpSampling"))
def spatial(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Each channel's map is pooled, cropped or repeated alone; a constant map stays constant."""
    if x.axis is not None:
        x = trace.along(x, channel_axis(layer, len(x.shape)))
    return trace.passed(x)


@channel_rule(*_ranks("GlobalMaxPooling", "GlobalAveragePooling"))
def global_pooling(trace: Trace, layer: Any, x: Channels) -> Channels:
    """One number a channel is left."""
    axis = channel_axis(layer, len(x.shape))
    x = trace.along(x, axis)
    return trace.passed(x, axis=axis if layer.keepdims else 1)


@channel_rule(*_ranks("ZeroPadding"))
def zero_padding(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Only a channel that is zero stays constant beside the zeros of the border."""
    if x.axis is not None:
        x = trace.along(x, channel_axis(layer, len(x.shape)))
    return trace.passed(replace(x, constant=np.where(x.constant == 0, 0.0, np.nan)))


@channel_rule(layers.Flatten)
def flatten(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Keras puts channel `i % C` at position `i`, whatever the data format."""
    x = trace.along(x, channel_axis(layer, len(x.shape)))
    shape = tuple(trace.call.outputs[0].shape)
    if shape[1] is None:
        trace.freeze(x, f"{layer.name} flattens a tensor of open size")
        return trace.opaque(shape)
    repeats = math.prod(shape[1:]) // len(x)
    return Channels(shape, 1, np.tile(x.ids, repeats), np.tile(x.constant, repeats))
