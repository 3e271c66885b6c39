"""What an int8 file does with each layer: which have kernels, and which share a range.

A layer that no rule knows stays in float, and the plan says why. A row is by type, and covers
subclasses that compute the same.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import keras
from keras import layers
from keras.src.applications.convnext import StochasticDepth
from keras.src.ops import nn
from keras.src.ops import numpy as knp

from tfprune.model.activations import is_activation
from tfprune.model.graph import Call
from tfprune.model.type_table import TypeTable

Kind: TypeAlias = Literal[
    # A rounded kernel; BatchNorm and ReLU behind it are a part of the operator.
    "kernel",
    # A range of its own; ReLU behind it is a part of the operator.
    "sum",
    # A range of its own.
    "own",
    # The same numbers in other places: the range of the input.
    "moved",
    # The range of the input, rounded once more.
    "averaged",
    # One range for all inputs and the output.
    "joined",
    # Scales and shifts each channel.
    "scaled",
    # As its function says.
    "activation",
]


class Rule(NamedTuple):
    """What becomes of one call.

    Attributes:
        kind: what the file does; None where the layer stays in float.
        reason: why it stays in float, in words that follow its name.
        function: the activation, for that kind.
    """

    kind: Kind | None
    reason: str = ""
    function: str = ""


_KINDS: TypeTable[Kind] = TypeTable(
    {
        **dict.fromkeys(
            (
                layers.Conv1D,
                layers.Conv2D,
                layers.DepthwiseConv2D,
                layers.Conv2DTranspose,
                layers.Dense,
            ),
            "kernel",
        ),
        **dict.fromkeys((layers.Add, knp.Add, layers.Subtract, knp.Subtract), "sum"),
        **dict.fromkeys(
            (
                layers.Multiply,
                knp.Multiply,
                layers.GlobalAveragePooling1D,
                layers.GlobalAveragePooling2D,
                knp.Mean,
            ),
            "own",
        ),
        **dict.fromkeys(
            (
                layers.Cropping1D,
                layers.Cropping2D,
                layers.Dropout,
                layers.Flatten,
                layers.GaussianDropout,
                layers.GaussianNoise,
                layers.GlobalMaxPooling1D,
                layers.GlobalMaxPooling2D,
                layers.Identity,
                layers.MaxPooling1D,
                layers.MaxPooling2D,
                layers.Permute,
                layers.RandomErasing,
                layers.RandomFlip,
                layers.RandomRotation,
                layers.RandomTranslation,
                layers.RandomZoom,
                layers.Reshape,
                layers.SpatialDropout1D,
                layers.SpatialDropout2D,
                layers.UpSampling2D,
                layers.ZeroPadding1D,
                layers.ZeroPadding2D,
                StochasticDepth,
                knp.ExpandDims,
                knp.Reshape,
                knp.Squeeze,
                knp.Transpose,
            ),
            "moved",
        ),
        **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D), "averaged"),
        **dict.fromkeys((layers.Concatenate, knp.Concatenate), "joined"),
        **dict.fromkeys(
            (layers.BatchNormalization, layers.Normalization, layers.Rescaling), "scaled"
        ),
        **dict.fromkeys(
            (
                layers.Activation,
                layers.ReLU,
                layers.Softmax,
                nn.Relu,
                nn.Relu6,
                nn.Sigmoid,
                nn.Silu,
                nn.Softmax,
            ),
            "activation",
        ),
    }
)
_FUNCTIONS = ("linear", "relu", "relu6", "sigmoid", "silu", "softmax", "tanh")
FUSED = ("linear", "relu", "relu6")
"""Activations that are a part of the operator before them."""
FIXED_RANGES = {
    "sigmoid": (0.0, 255 / 256),
    "softmax": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}
"""Ranges that TFLite prescribes."""


def rule_of(call: Call) -> Rule:
    """The rule of one call in a graph.

    Args:
        call: of a layer or raw operation.
    """
    operation: Any = call.operation
    kind = _KINDS.of(operation)
    if kind is None:
        return Rule(None, f"has no rule for {type(operation).__name__}")
    if any(not keras.backend.is_float_dtype(x.dtype) for x in (*call.inputs, *call.outputs)):
        return Rule(None, "computes with other numbers than floats")
    if getattr(operation, "data_format", None) == "channels_first":
        return Rule(None, "has its channels first, and TFLite computes with channels last")
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        return Rule(None, "has LoRA or quantized weights")
    if kind == "activation":
        function = activation_name(operation)
        if function is None:
            return Rule(None, "has no rule for its activation")
        return Rule(kind, function=function)
    said = _refused(call, kind)
    if said:
        return Rule(None, said)
    if isinstance(operation, layers.UpSampling2D) and operation.interpolation != "nearest":
        return Rule("averaged")
    return Rule(kind)


def _refused(call: Call, kind: Kind) -> str:
    """Why a call of a known kind has no rule; empty where it has."""
    operation: Any = call.operation
    if kind == "kernel":
        if getattr(operation, "padding", "") == "causal":
            return "pads causally"
        if operation.activation is not None and activation_name(operation) is None:
            return "has no rule for its activation"
    if kind in ("sum", "own") and type(operation).__module__.startswith("keras.src.ops"):
        beside = [
            each
            for each in keras.tree.flatten((call.args, dict(call.kwargs)))
            if not isinstance(each, keras.KerasTensor)
        ]
        if isinstance(operation, knp.Add | knp.Subtract | knp.Multiply) and beside:
            return "computes with a constant"
    if kind == "scaled":
        axis = getattr(operation, "axis", -1)
        axes = axis if isinstance(axis, tuple | list) else (axis,)
        last = len(call.inputs[0].shape) - 1
        if any(each not in (-1, last) for each in axes):
            return "scales along another axis than the last"
        if getattr(operation, "invert", False):
            return "inverts"
    return ""


def activation_name(operation: Any) -> str | None:
    """The activation that a layer or raw operation applies; None where no rule knows it.

    Args:
        operation: an activation, or a layer with an argument `activation`.
    """
    if isinstance(operation, layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        return {None: "relu", 6: "relu6"}.get(operation.max_value) if plain else None
    if isinstance(operation, layers.Softmax | nn.Softmax):
        return "softmax" if operation.axis == -1 else None
    if isinstance(operation, nn.Relu | nn.Relu6 | nn.Sigmoid | nn.Silu):
        return type(operation).__name__.lower()
    function = operation.activation
    if isinstance(function, layers.Layer):
        return activation_name(function) if _KINDS.of(function) == "activation" else None
    return next((name for name in _FUNCTIONS if is_activation(function, name)), None)
