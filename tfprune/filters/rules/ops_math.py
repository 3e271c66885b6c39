"""Raw operations on single numbers: `x + 3`, `ops.maximum(x, y)`, `ops.relu(x)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src.ops import core, math, nn
from keras.src.ops import numpy as knp

from tfprune.filters.channels import Channels, Trace
from tfprune.filters.rules._common import mapped
from tfprune.filters.rules.ops_common import arguments, operations, rewritable, rewrite, stopped
from tfprune.filters.rules.registry import channel_rule

_ALONE = [
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
_TOGETHER = operations(
    knp,
    "Add Subtract Multiply Divide TrueDivide DivideNoNan FloorDivide Maximum Minimum Fmax Fmin "
    "Power Mod Fmod Arctan2 Hypot Logaddexp Logaddexp2 Heaviside Nextafter Where Equal NotEqual "
    "Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor",
)


def _finite(channels: Channels) -> Channels:
    # A channel that is infinite everywhere is silent to nobody.
    finite = np.isfinite(channels.constant)
    return replace(channels, constant=np.where(finite, channels.constant, np.nan))


@channel_rule(*_ALONE)
def alone(trace: Trace, operation: Any, x: Channels) -> Channels:
    """Each number is mapped by itself."""
    return _finite(mapped(operation, trace.passed(x)))


@channel_rule(knp.Clip)
def clip(trace: Trace, operation: Any, x: Channels) -> Channels | Sequence[Channels]:
    """Bounds for all numbers pass channels on; bounds per channel sit in a config."""
    if np.size(operation.x_min) > 1 or np.size(operation.x_max) > 1:
        return stopped(trace, [x], "has bounds of its own for each channel")
    return alone(trace, operation, x)


def _per_channel(value: Any, back: int) -> np.ndarray:
    """An array of numbers as (positions, channels or 1), its axis `back` last."""
    array = np.asarray(keras.ops.convert_to_numpy(value))
    if array.ndim < -back:
        return array.reshape(-1, 1)
    array = np.moveaxis(array, back, -1)
    return array.reshape(-1, array.shape[-1])


def _values(operation: Any, operands: Sequence[Any], size: int) -> np.ndarray:
    """Each channel's value where every operand has one there, and the same at all positions.

    Args:
        operation: what combines the operands.
        operands: numbers, or arrays (positions, size or 1), NaN where a channel varies.
        size: the number of channels.

    Returns:
        float64 (size,), NaN where the result varies.
    """
    columns = [np.broadcast_to(each, (len(np.atleast_2d(each)), size)) for each in operands]
    known = ~np.any([np.isnan(each).any(axis=0) for each in columns], axis=0)
    values = np.full(size, np.nan)
    if known.any():
        # A number stays one, since Keras chooses the type of the result by it.
        given = [
            each if np.ndim(each) == 0 else column[:, known].astype(np.float32)
            for each, column in zip(operands, columns, strict=True)
        ]
        found = np.asarray(keras.ops.convert_to_numpy(operation(*given)), np.float64)
        same = (found == found[0]).all(axis=0) & np.isfinite(found[0])
        values[known] = np.where(same, found[0], np.nan)
    if isinstance(operation, knp.Multiply):
        # Zero times something that varies is still zero.
        zero = np.any([(each == 0).all(axis=0) for each in columns], axis=0)
        values = np.where(zero, 0.0, values)
    return values


def _cut(array: np.ndarray, back: int, kept: np.ndarray) -> np.ndarray:
    return np.compress(kept, array, back)


@channel_rule(*_TOGETHER)
def together(trace: Trace, operation: Any, *inputs: Channels) -> Channels | list[Channels]:
    """Channels that meet go together; what is spread over many channels stays.

    A number meets every channel alike. An array along the channel axis is cut with the channels.
    """
    shape = tuple(trace.call.outputs[0].shape)
    given = arguments(trace)
    if any(each is None for each in given.values()):
        return stopped(trace, inputs, "has a result whose size is not known")
    remaining = iter(inputs)
    operands = [
        next(remaining) if isinstance(each, keras.KerasTensor) else each for each in given.values()
    ]
    back = next(
        (
            each.axis - len(each.shape)
            for each in inputs
            if each.axis is not None and each.shape[each.axis] == shape[each.axis - len(each.shape)]
        ),
        None,
    )
    if back is None:
        return stopped(trace, inputs, "spreads it over all channels")
    size = shape[back]
    assert size is not None
    met: list[Channels] = []
    arrays: list[tuple[str, np.ndarray]] = []
    values: list[Any] = []
    for name, each in zip(given, operands, strict=True):
        if isinstance(each, Channels):
            if len(each.shape) >= -back and each.shape[back] == size:
                met.append(trace.along(each, back))
                values.append(met[-1].constant[None])
            else:
                trace.freeze(each, f"{operation.name} spreads it over all channels")
                values.append(np.full((1, 1), np.nan))
        elif np.ndim(each) == 0:
            values.append(np.asarray(keras.ops.convert_to_numpy(each)).item())
        else:
            values.append(_per_channel(each, back))
            if values[-1].shape[1] > 1:
                arrays.append((name, np.asarray(keras.ops.convert_to_numpy(each))))
    for other in met[1:]:
        trace.unite(met[0], other)
    if arrays and not rewritable(trace):
        return stopped(trace, inputs, "combines it with an array, at several calls")
    if arrays:
        rewrite(trace, met[0], {name: partial(_cut, array, back) for name, array in arrays})
    return Channels(shape, len(shape) + back, met[0].ids, _values(operation, values, size))
