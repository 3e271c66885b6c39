"""What maps number by number: activations, sums and products, and what acts in training alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.ops import core, math, nn
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules.arguments import arguments, operations, rewritable, rewrite
from tfprune.filters.rules.reduce import spread
from tfprune.filters.rules.registry import channel_rule, refuse, refusing
from tfprune.model.activations import is_activation, is_pointwise, mixes_channels
from tfprune.model.layer_table import TypeTable

# -- one tensor ---------------------------------------------------------------------------------

_POINTWISE = [
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    *operations(
        nn,
        "Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus "
        "LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh "
        "HardShrink Threshold",
    ),
    *operations(
        knp,
        "Absolute Abs Fabs Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Ceil Copy Cos Cosh "
        "Deg2rad Exp Exp2 Expm1 Floor Isfinite Isinf Isnan Log Log10 Log1p Log2 LogicalNot "
        "NanToNum Negative OnesLike Rad2deg Reciprocal Round Sign Signbit Sin Sinc Sinh Sqrt "
        "Square Tan Tanh Trunc ZerosLike",
    ),
    *operations(math, "Rsqrt Erf Erfc Erfinv"),
    *operations(core, "Cast SaturateCast StopGradient"),
]


@channel_rule(*_POINTWISE)
def pointwise(trace: Trace, operation: Any, x: Channels) -> Channels:
    """Maps each number by itself."""
    return trace.passed(x).mapped(operation)


@channel_rule(layers.Activation)
def activation(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Does what the activation function does."""
    return activated(trace, layer.activation, trace.passed(x))


def activated(trace: Trace, activation: Any, x: Channels) -> Channels:
    """Channels after an activation function, which may freeze them or be inexact."""
    if activation is None or is_activation(activation, "linear"):
        return x
    x = replace(x, linear=None)
    if is_pointwise(activation):
        return x.mapped(activation)
    if mixes_channels(activation):
        return spread(trace, x, [len(x.shape) - 1], _function_name(activation))
    trace.freeze(x, not_pointwise(activation))
    return x.varying()


def not_pointwise(activation: Any) -> str:
    """Why channels that meet an activation function cannot go."""
    return (
        f"the activation {_function_name(activation)} is not known to act on each channel alone "
        "(see tfprune.register_pointwise)"
    )


def _function_name(function: Any) -> str:
    """The name of a function, or of an object that is called like one, in messages."""
    return str(getattr(function, "__name__", type(function).__name__))


@channel_rule(layers.PReLU)
def prelu(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Slopes have the shape of an example, with size 1 where an axis shares them."""
    if x.axis is not None and x.axis not in (layer.shared_axes or ()):
        # Not "scale": what is positive passes whatever the slope is.
        trace.weight(layer.alpha, x.axis - 1, x, "state")
    positive = replace(x, constant=np.where(x.constant >= 0, x.constant, np.nan))
    return trace.passed(positive)


@channel_rule(knp.Clip)
def clip(trace: Trace, operation: Any, x: Channels) -> Channels | Sequence[Channels]:
    """Bounds for all numbers pass channels on; bounds per channel are part of the config."""
    if np.size(operation.x_min) > 1 or np.size(operation.x_max) > 1:
        return refuse(trace, "has bounds of its own for each channel", x)
    return pointwise(trace, operation, x)


# Random layers move, blur or erase all channels of an image alike, however many there are; those
# that mix colours have no rule.
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
    StochasticDepth,
    layers.RandomElasticTransform,
    layers.RandomErasing,
    layers.RandomFlip,
    layers.RandomGaussianBlur,
    layers.RandomPerspective,
    layers.RandomRotation,
    layers.RandomShear,
    layers.RandomTranslation,
    layers.RandomZoom,
)
def only_in_training(trace: Trace, layer: Any, x: Channels) -> Channels:
    """At inference these return their input."""
    return trace.passed(x)


channel_rule(layers.Masking)(refusing("skips a step by the values of all its channels"))


# -- several tensors ----------------------------------------------------------------------------

# From the values of the operands, each float (positions, size) or a number, to the result.
Combine = Callable[..., np.ndarray]

_MERGED: TypeTable[Callable[[np.ndarray], np.ndarray]] = TypeTable(
    {
        layers.Add: lambda values: values.sum(axis=0),
        layers.Subtract: lambda values: values[0] - values[1],
        layers.Multiply: lambda values: values.prod(axis=0),
        layers.Average: lambda values: values.mean(axis=0),
        layers.Maximum: lambda values: values.max(axis=0),
        layers.Minimum: lambda values: values.min(axis=0),
    }
)
_COMBINED = operations(
    knp,
    "Add Subtract Multiply Divide TrueDivide DivideNoNan FloorDivide Maximum Minimum Fmax Fmin "
    "Power Mod Fmod Arctan2 Hypot Logaddexp Logaddexp2 Heaviside Nextafter Where Equal NotEqual "
    "Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor",
)


@channel_rule(*_MERGED)
def merged(trace: Trace, layer: Any, *inputs: Channels) -> Channels | list[Channels]:
    """Combines tensors number by number."""
    function = _MERGED[type(layer)]
    product = function is _MERGED[layers.Multiply]
    return combined(trace, lambda *values: function(np.stack(values)), inputs, product=product)


@channel_rule(CustomScaleLayer)
def custom_scale(trace: Trace, layer: Any, *inputs: Channels) -> Channels | list[Channels]:
    """Adds a residual, times one number, to a shortcut."""
    return combined(trace, lambda shortcut, x: shortcut + x * layer.scale, inputs)


@channel_rule(*_COMBINED)
def operation_of_several(
    trace: Trace, operation: Any, *inputs: Channels
) -> Channels | list[Channels]:
    """Combines tensors, numbers and arrays, such as the 3 of `x + 3`."""
    given = arguments(trace)
    if any(value is None for value in given.values()):
        return refuse(trace, "has a result whose size is not known", *inputs)
    tensors = iter(inputs)
    operands = [
        next(tensors) if isinstance(value, keras.KerasTensor) else _array(value)
        for value in given.values()
    ]

    def combine(*values: Any) -> np.ndarray:
        # A number stays one, since Keras chooses the type of the result by it.
        cast = [value if np.ndim(value) == 0 else value.astype(np.float32) for value in values]
        return np.asarray(keras.ops.convert_to_numpy(operation(*cast)), np.float64)

    product = isinstance(operation, knp.Multiply)
    return combined(trace, combine, operands, names=list(given), product=product)


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


def combined(
    trace: Trace,
    combine: Combine,
    operands: Sequence[Channels | np.ndarray],
    names: Sequence[str] = (),
    product: bool = False,
) -> Channels | list[Channels]:
    """Channels after an operation of several operands, number by number, that broadcasts.

    Channels that meet go together; what is spread over many channels stays. A number meets every
    channel alike. An array along the channel axis is cut with the channels.

    Args:
        trace: what is recorded on.
        combine: from the constants of the operands to those of the output.
        operands: the channels of a tensor, or an array.
        names: of each operand, the parameter of the call that it is; for operands that are arrays.
        product: whether zero times something that varies is zero.
    """
    inputs = [operand for operand in operands if isinstance(operand, Channels)]
    shape = tuple(trace.call.outputs[0].shape)
    back = _meeting_axis(inputs, shape)
    spread_out = "spreads it over all channels"
    if back is None:
        return refuse(trace, spread_out, *inputs)
    size = shape[back]
    assert size is not None
    meeting: list[Channels] = []
    cut: list[int] = []
    values: list[Any] = []
    for place, operand in enumerate(operands):
        if isinstance(operand, np.ndarray):
            values.append(_per_channel(operand, back) if operand.ndim else operand.item())
            if operand.ndim and values[-1].shape[1] > 1:
                cut.append(place)
        elif len(operand.shape) >= -back and operand.shape[back] == size:
            meeting.append(trace.along(operand, back))
            values.append(meeting[-1].constant[None])
        else:
            trace.freeze(operand, f"{trace.call.operation.name} {spread_out}")
            values.append(np.full((1, 1), np.nan))
    for other in meeting[1:]:
        trace.unite(meeting[0], other)
    if cut and not rewritable(trace):
        return refuse(trace, "combines it with an array, at several calls", *inputs)
    if cut:
        new = {names[place]: partial(_compressed, operands[place], back) for place in cut}
        rewrite(trace, meeting[0], new)
    constant = _constants(combine, values, size, product)
    return Channels(shape, len(shape) + back, meeting[0].ids, constant)


def _meeting_axis(inputs: Sequence[Channels], shape: tuple[int | None, ...]) -> int | None:
    """The axis of the output, counted from the back, that some input carries ids along."""
    for x in inputs:
        if x.axis is not None and x.shape[x.axis] == shape[x.axis - len(x.shape)]:
            return x.axis - len(x.shape)
    return None


def _per_channel(array: np.ndarray, back: int) -> np.ndarray:
    """An array as (positions, channels or 1), its axis `back` last."""
    if array.ndim < -back:
        return array.reshape(-1, 1)
    array = np.moveaxis(array, back, -1)
    return array.reshape(-1, array.shape[-1])


def _compressed(array: Any, back: int, kept: np.ndarray) -> np.ndarray:
    return np.compress(kept, array, back)


def _constants(combine: Combine, values: Sequence[Any], size: int, product: bool) -> np.ndarray:
    """The constant of each channel, where every operand has one, the same at all positions.

    Args:
        combine: from the values of the operands to those of the result.
        values: numbers, or arrays (positions, size or 1), NaN where a channel varies.
        size: the number of channels.
        product: whether zero times something that varies is zero.

    Returns:
        float64 (size,), NaN where the result varies.
    """
    columns = [np.broadcast_to(value, (len(np.atleast_2d(value)), size)) for value in values]
    known = ~np.any([np.isnan(column).any(axis=0) for column in columns], axis=0)
    constant = np.full(size, np.nan)
    if known.any():
        result = combine(
            *(
                value if np.ndim(value) == 0 else column[:, known]
                for value, column in zip(values, columns, strict=True)
            )
        )
        same = (result == result[0]).all(axis=0) & np.isfinite(result[0])
        constant[known] = np.where(same, result[0], np.nan)
    if product:
        zero = np.any([(column == 0).all(axis=0) for column in columns], axis=0)
        constant = np.where(zero, 0.0, constant)
    return constant
