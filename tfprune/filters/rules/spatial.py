"""Layers that pool, pad, crop or resample each channel's map alone."""

from __future__ import annotations

from typing import Any

from keras import layers

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import channel_axis, zeros_only
from tfprune.filters.rules.pointwise import only_in_training
from tfprune.filters.rules.registry import channel_rule


def _ranks(*names: str) -> list[type]:
    found = [getattr(layers, f"{name}{rank}D", None) for name in names for rank in (1, 2, 3)]
    return [each for each in found if each is not None]


def _along_channels(trace: Trace, layer: Any, x: Channels) -> Channels:
    return x if x.axis is None else trace.along(x, channel_axis(layer, len(x.shape)))


@channel_rule(
    *_ranks(
        "MaxPooling",
        "AveragePooling",
        "AdaptiveMaxPooling",
        "AdaptiveAveragePooling",
        "Cropping",
        "UpSampling",
    )
)
def resampled(trace: Trace, layer: Any, x: Channels) -> Channels:
    """A constant map stays constant."""
    return trace.passed(_along_channels(trace, layer, x))


@channel_rule(*_ranks("GlobalMaxPooling", "GlobalAveragePooling"))
def global_pooling(trace: Trace, layer: Any, x: Channels) -> Channels:
    """One number a channel is left."""
    axis = channel_axis(layer, len(x.shape))
    x = trace.along(x, axis)
    return trace.passed(x, axis=axis if layer.keepdims else 1)


@channel_rule(*_ranks("ZeroPadding"), layers.CenterCrop, layers.Resizing)
def padded(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Only a channel that is zero stays constant beside the zeros of the border.

    Resizing changes any other constant by its rounding too.
    """
    if getattr(layer, "pad_to_aspect_ratio", False) and layer.fill_value != 0:
        return trace.passed(_along_channels(trace, layer, x)).varying()
    return trace.passed(zeros_only(_along_channels(trace, layer, x)))


# At inference these return their input. In training they move, blur or erase all channels of an
# image alike, however many there are; those that mix colours have no rule.
channel_rule(
    layers.RandomElasticTransform,
    layers.RandomErasing,
    layers.RandomFlip,
    layers.RandomGaussianBlur,
    layers.RandomPerspective,
    layers.RandomRotation,
    layers.RandomShear,
    layers.RandomTranslation,
    layers.RandomZoom,
)(only_in_training)
