"""What several rules need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.filters.channels import Channels, Trace
from tfprune.model.activations import is_activation, is_pointwise, mixes_channels


def channel_axis(layer: keras.Layer, rank: int) -> int:
    """The channel axis that a layer's `data_format` names, counted from the front."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def numpy(variable: Any) -> np.ndarray:
    """A variable's value as float64, so that analysis loses nothing to rounding."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def mapped(function: Callable[..., Any], channels: Channels) -> Channels:
    """`channels` after a function of single numbers, applied to what is constant."""
    known = ~np.isnan(channels.constant)
    if not known.any():
        return channels
    values = np.full(len(channels), np.nan)
    inputs = np.asarray(channels.constant[known], np.float32)
    values[known] = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(inputs)))
    return replace(channels, constant=values)


def activated(trace: Trace, activation: Any, channels: Channels) -> Channels:
    """`channels` after an activation function, which may freeze them or be inexact."""
    if activation is None or is_activation(activation, "linear"):
        return channels
    channels = replace(channels, linear=None)
    if is_pointwise(activation):
        return mapped(activation, channels)
    if mixes_channels(activation):
        # These work along the last axis, which holds no channels where those come first.
        if channels.axis == len(channels.shape) - 1:
            trace.inexact(channels, f"{function_name(activation)} spreads over all channels")
        return channels.varying()
    trace.freeze(channels, not_alone(activation))
    return channels.varying()


def not_alone(activation: Any) -> str:
    """Why channels that meet an activation function cannot go."""
    return (
        f"the activation {function_name(activation)} is not known to act on each channel alone "
        "(see tfprune.register_pointwise)"
    )


def function_name(function: Any) -> str:
    """What a function, or an object that is called like one, is called in messages."""
    return str(getattr(function, "__name__", type(function).__name__))


def zeros_only(channels: Channels) -> Channels:
    """`channels` after what keeps a channel of zeros and may change any other constant."""
    return replace(channels, constant=np.where(channels.constant == 0, 0.0, np.nan))


def agreed(constants: np.ndarray) -> np.ndarray:
    """The constant that all of several channels share, NaN where they differ or vary.

    Args:
        constants: float (tensors, channels).
    """
    return np.where((constants == constants[0]).all(axis=0), constants[0], np.nan)


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
