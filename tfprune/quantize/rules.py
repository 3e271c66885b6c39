"""What an integer file does with each layer: which have kernels, and which share a range.

A layer that no rule knows stays in float, and the plan says why. A row is by type, and covers
subclasses that compute the same.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import StochasticDepth
from keras.src.ops import nn
from keras.src.ops import numpy as knp

from tfprune.model.activations import is_activation
from tfprune.model.graph import Call
from tfprune.model.layer_table import TRANSPOSED_CONVOLUTIONS, TypeTable
from tfprune.vocabulary import ActivationTypeName

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
    # A sum or product with a number.
    "constant",
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
                layers.DepthwiseConv1D,
                layers.DepthwiseConv2D,
                layers.Conv1DTranspose,
                layers.Conv2DTranspose,
                layers.Dense,
            ),
            "kernel",
        ),
        **dict.fromkeys((layers.Add, knp.Add, layers.Subtract, knp.Subtract), "sum"),
        **dict.fromkeys(
            (
                layers.Multiply,
                knp.Divide,
                knp.Multiply,
                knp.TrueDivide,
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
        **dict.fromkeys(
            (
                layers.Concatenate,
                knp.Concatenate,
                layers.Maximum,
                knp.Maximum,
                layers.Minimum,
                knp.Minimum,
            ),
            "joined",
        ),
        **dict.fromkeys(
            (layers.BatchNormalization, layers.Normalization, layers.Rescaling), "scaled"
        ),
        **dict.fromkeys(
            (
                layers.Activation,
                layers.LeakyReLU,
                layers.PReLU,
                layers.ReLU,
                layers.Softmax,
                nn.Gelu,
                nn.HardSigmoid,
                nn.HardSilu,
                nn.LeakyRelu,
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
_FUNCTIONS = (
    "linear",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "leaky_relu",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
)
# Layers and operations that TFLite's converter leaves in float, whatever their ranges are.
_FLOAT = (layers.Conv3D, layers.Conv3DTranspose, layers.ELU, nn.Elu)
FUSED = ("linear", "relu", "relu6")
"""Activations that are a part of the operator before them."""
_OF_INT16 = (-32767 / 32768, 32767 / 32768)
FIXED_RANGES: dict[ActivationTypeName, dict[str, tuple[float, float]]] = {
    "int8": {
        "sigmoid": (0.0, 255 / 256),
        "softmax": (0.0, 255 / 256),
        "tanh": (-1.0, 127 / 128),
    },
    "int16": dict.fromkeys(("sigmoid", "softmax", "tanh"), _OF_INT16),
}
"""Ranges that TFLite prescribes, by the type of activations."""
_RAW = {
    layers.LeakyReLU: "leaky_relu",
    layers.PReLU: "prelu",
    nn.Gelu: "gelu",
    nn.HardSigmoid: "hard_sigmoid",
    nn.HardSilu: "hard_silu",
    nn.LeakyRelu: "leaky_relu",
    nn.Relu: "relu",
    nn.Relu6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.Silu: "silu",
}
LEAKY_SLOPE = 0.2
"""That of `keras.activations.leaky_relu`."""
DIVISIONS = (knp.Divide, knp.TrueDivide)


def rule_of(call: Call) -> Rule:
    """The rule of one call in a graph.

    Args:
        call: of a layer or raw operation.
    """
    operation: Any = call.operation
    kind = _KINDS.of(operation)
    if isinstance(operation, _FLOAT):
        return Rule(None, f"is {type(operation).__name__}, which TFLite computes in float")
    if kind is None:
        return Rule(None, f"has no rule for {type(operation).__name__}")
    if any(not keras.backend.is_float_dtype(x.dtype) for x in (*call.inputs, *call.outputs)):
        return Rule(None, "computes with other numbers than floats")
    if getattr(operation, "data_format", None) == "channels_first":
        return Rule(None, "has its channels first, and TFLite computes with channels last")
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        return Rule(None, "has LoRA or quantized weights")
    if _regularizes(operation) and (kind != "kernel" or not _ends_at_once(operation)):
        return Rule(None, "has an activity regularizer, which takes what it gives in float")
    if kind == "activation":
        function = activation_name(operation)
        if function is None:
            return Rule(None, "has no rule for its activation")
        return Rule(kind, function=function)
    if number_of(call) is not None:
        return Rule("constant")
    said = _refused(call, kind)
    if said:
        return Rule(None, said)
    if isinstance(operation, layers.UpSampling2D) and operation.interpolation != "nearest":
        return Rule("averaged")
    return Rule(kind)


def _regularizes(operation: Any) -> bool:
    """Whether an operation adds to the loss by what it gives."""
    return getattr(operation, "activity_regularizer", None) is not None


def _ends_at_once(layer: Any) -> bool:
    """Whether what a layer with a kernel gives is what its operator gives."""
    fused = ("linear",) if isinstance(layer, TRANSPOSED_CONVOLUTIONS) else FUSED
    return activation_name(layer) in fused


def number_of(call: Call) -> float | None:
    """The number that a raw sum, difference, product or quotient of a tensor has; None without one.

    Args:
        call: of a layer or raw operation.
    """
    kinds = (knp.Add, knp.Subtract, knp.Multiply, *DIVISIONS)
    if not isinstance(call.operation, kinds) or len(call.inputs) != 1:
        return None
    x, y = operands(call)
    if isinstance(call.operation, DIVISIONS) and isinstance(y, keras.KerasTensor):
        return None
    number = x if isinstance(y, keras.KerasTensor) else y
    if isinstance(number, keras.Variable):
        return None
    value = np.asarray(number, np.float32)
    # TFLite has no step for a zero.
    usable = value.ndim == 0 and np.isfinite(value) and value != 0
    return float(value) if usable else None


def operands(call: Call) -> list[Any]:
    """The two things that a raw operation computes with, tensors or not.

    Args:
        call: of a raw operation with two arguments.
    """
    return keras.tree.flatten((call.args, dict(call.kwargs)))


def slope_of(operation: Any) -> float:
    """What a leaky ReLU multiplies negative numbers by.

    Args:
        operation: one that `activation_name` calls so.
    """
    return float(getattr(operation, "negative_slope", LEAKY_SLOPE))


def _refused(call: Call, kind: Kind) -> str:
    """Why a call of a known kind has no rule; empty where it has."""
    operation: Any = call.operation
    if kind == "kernel" and activation_name(operation) is None:
        return "has no rule for its activation"
    if isinstance(operation, DIVISIONS):
        return "divides by something else than a number"
    if kind in ("sum", "own", "joined") and type(operation).__module__.startswith("keras.src.ops"):
        beside = [
            each
            for each in keras.tree.flatten((call.args, dict(call.kwargs)))
            if not isinstance(each, keras.KerasTensor)
        ]
        pairs = (knp.Add, knp.Subtract, knp.Multiply, knp.Maximum, knp.Minimum)
        if isinstance(operation, pairs) and beside:
            return "computes with constants"
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
        if operation.negative_slope and not operation.threshold and operation.max_value is None:
            return "leaky_relu"
        return {None: "relu", 6: "relu6"}.get(operation.max_value) if plain else None
    if isinstance(operation, layers.Softmax | nn.Softmax):
        return "softmax" if operation.axis == -1 else None
    known = _RAW.get(type(operation))
    if known is not None:
        return known
    function = operation.activation
    if isinstance(function, layers.Layer):
        # Slopes are those of the inner layer.
        name = activation_name(function) if _KINDS.of(function) == "activation" else None
        return None if name in ("leaky_relu", "prelu") else name
    if function is keras.ops.gelu:
        # An approximation by default, which its name in a config does not tell.
        return None
    return next((name for name in _FUNCTIONS if is_activation(function, name)), None)
