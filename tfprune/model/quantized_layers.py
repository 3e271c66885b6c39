"""The layers of a quantization-aware model: they compute with the numbers that its file has.

Every value is rounded where the file rounds it, and gradients pass as if it was not: the
straight-through estimator of Bengio et al. 2013. `tfprune.quantize_aware` puts them into models.

Keras may be imported in the middle of one of our modules, and these classes are registered then, so
this module imports none that needs Keras before it is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.vocabulary import ActivationTypeName, RangeName, WeightTypeName

STEPS: dict[ActivationTypeName, int] = {"int8": 255, "int16": 65534}
"""Steps between the lowest and the highest value. int16 is symmetric: -32768 is not used."""
LEAST_RANGE = 255e-6
"""How wide a range is at least: TFLite divides by its step, and what is always zero has one too."""
# As a logarithm; TFLite takes steps for powers of two within half of it.
_NEAR_POWER = 2e-3
# What int8 stores for the lowest value is -128.
_MIDDLE = 128.0
# A bit more than a half, since float32 is not exact where the integers of the file are.
_HALF = 0.5 + 1e-4
# int8 weights are symmetric, and -128 is not used, as TFLite asks for.
_LARGEST = {"int8": 127.0, "int4": 7.0}
# Bits of a step: products with 8-bit integers are exact in the 24 bits of a float32.
_BITS = 15
# All powers of two that are needed. pow() may be off by a bit.
_POWERS = 60
_PACKAGE = "tfprune"

Rounding: TypeAlias = Literal["even", "up", "average", "product", "sum", "difference", "scaled"]
"""How a file rounds what an operator gives, as XNNPACK's kernels do it, bit for bit:

- `"even"`: to the nearest, a half to the even number.
- `"up"`: a half goes up.
- `"average"`: the stored integers, a half away from zero.
- `"product"`: a whole number of products of steps, once more multiplied by a float32.
- `"sum"`, `"difference"`: of two tensors, with multipliers of 21 bits.
- `"scaled"`: from another range, or by a leaky ReLU: multiplied with 8 bits behind the point.
"""


def straight_through(rounded: Any, clipped: Any) -> Any:
    """The rounded value, with the gradient of the clipped one.

    Args:
        rounded: what the file has.
        clipped: the same before rounding, of the same shape.
    """
    # Exactly `rounded`: the difference is zero.
    return ops.stop_gradient(rounded) + (clipped - ops.stop_gradient(clipped))


def _power_of_two(exponent: Any) -> Any:
    """2 to the power of a tensor of whole numbers, exactly."""
    powers = ops.convert_to_tensor(2.0 ** np.arange(-_POWERS, _POWERS + 1), "float32")
    places = ops.clip(exponent + _POWERS, 0, 2 * _POWERS)
    return ops.take(powers, ops.cast(places, "int32"))


def _exponent(x: Any) -> Any:
    """The exponent of positive floats: the largest n with 2**n <= x."""
    n = ops.floor(ops.log2(ops.maximum(x, 1e-12)))
    # A logarithm is not exact next to powers of two.
    n = n - ops.cast(_power_of_two(n) > x, "float32")
    return n + ops.cast(_power_of_two(n + 1) <= x, "float32")


def short(x: Any) -> Any:
    """The next larger number of few bits, so that its products with 8-bit integers are exact.

    Then a tensor, its file and TFLite's converter know the same step, bit for bit.

    Example:
        ```python
        short(0.1)  # 0.10000228881835938
        ```

    Args:
        x: positive float32 tensor.
    """
    unit = _power_of_two(_exponent(x) + 1 - _BITS)
    return ops.ceil(x / unit) * unit


def step_and_zero(low: Any, high: Any, kind: ActivationTypeName = "int8") -> tuple[Any, Any]:
    """The quantization step of a range, and the steps from its lowest value to zero.

    Example:
        ```python
        step, below = step_and_zero(-1.0, 1.0)  # 0.00784, 128.0
        ```

    Args:
        low: the lowest value, 0 or less.
        high: the highest value, 0 or more.
        kind: `"int8"`, or `"int16"`, whose ranges reach as far below zero as above it.

    Returns:
        The step, see `short`; and a whole number of steps, so that zero is a value of the file.
    """
    low, high = _ends(low, high, kind)
    # A quotient by a number would be a product in a compiled graph, and another float.
    step = short(ops.maximum(high - low, LEAST_RANGE) * (1.0 / STEPS[kind]))
    if kind == "int16":
        return step, ops.full_like(step, STEPS[kind] // 2)
    return step, ops.clip(ops.floor(-low / step + _HALF), 0, STEPS[kind])


def _off_powers(low: Any, high: Any) -> tuple[Any, Any]:
    """The ends of an int16 range whose step is not next to a power of two.

    Sums with such steps alone take kernels of TFLite that refuse inputs with larger steps than
    those of the sum.
    """
    low, high = _ends(low, high, "int16")
    power = ops.log2(ops.maximum(high - low, LEAST_RANGE) * (1.0 / STEPS["int16"]))
    is_near = ops.abs(power - ops.round(power)) < _NEAR_POWER
    wider = ops.where(is_near, 2.0 ** (2 * _NEAR_POWER), 1.0)
    return low * wider, high * wider


def _ends(low: Any, high: Any, kind: ActivationTypeName) -> tuple[Any, Any]:
    """The lowest and the highest value of a range as tensors, as far from zero for int16."""
    low, high = ops.convert_to_tensor(low, "float32"), ops.convert_to_tensor(high, "float32")
    if kind == "int16":
        high = ops.maximum(-low, high)
        low = -high
    return low, high


def rounded_to_range(
    x: Any,
    low: Any,
    high: Any,
    rounding: Rounding = "even",
    beside: Sequence[Any] = (),
    kind: ActivationTypeName = "int8",
) -> Any:
    """Rounds to the values of a range, and clips to it; straight-through.

    Args:
        x: float32 tensor.
        low: scalar, 0 or less.
        high: scalar, 0 or more.
        rounding: what the file computes.
        beside: what it needs for that; see `FakeQuantize`.
        kind: see `step_and_zero`.
    """
    low, high = _ends(low, high, kind)
    step, below = (ops.stop_gradient(each) for each in step_and_zero(low, high, kind))
    # The ends are those of the file; their gradients are those of the range.
    lowest = straight_through(-below * step, low)
    highest = straight_through((STEPS[kind] - below) * step, high)
    clipped = ops.minimum(ops.maximum(x, lowest), highest)
    levels = _levels(ops.stop_gradient(x), step, below, rounding, beside)
    levels = ops.clip(levels, -below, STEPS[kind] - below)
    return straight_through(levels * step, clipped)


def _levels(x: Any, step: Any, below: Any, rounding: Rounding, beside: Sequence[Any]) -> Any:
    """How many steps a file makes of each value; the ends of the range do not matter yet."""
    if rounding == "up":
        return ops.floor(x / step + _HALF)
    if rounding == "average":
        stored = x / step + below - _MIDDLE
        stored = ops.sign(stored) * ops.floor(ops.abs(stored) + _HALF)
        return stored - below + _MIDDLE
    if rounding == "product":
        unit = functools.reduce(ops.multiply, beside)
        known = unit > 0
        unit = ops.where(known, unit, ops.ones_like(unit))
        # The file has whole numbers here.
        products = x / unit
        products = ops.where(known, ops.round(products), products)
        return ops.round(products * (unit / step))
    if rounding == "scaled":
        before, former, slope = (ops.cast(each, "float32") for each in beside)
        # 8 bits behind the point.
        rising, falling = (ops.round(former / step * each * 256.0) for each in (1.0, slope))
        levels = ops.round(before / _known(former))
        scaled = ops.floor((levels * ops.where(levels < 0, falling, rising) + 128.0) / 256.0)
        return ops.where(former > 0, scaled, ops.round(x / step))
    if rounding in ("sum", "difference"):
        return _levels_of_sum(x, step, beside, 1.0 if rounding == "sum" else -1.0)
    return ops.round(x / step)


def _joined(rounding: Rounding, beside: Sequence[Any], numbers: Sequence[float]) -> list[Any]:
    """Tensors and numbers in one list, as `_levels` reads it; Keras takes no mixed one."""
    joined, given = list(beside), [ops.convert_to_tensor(each, "float32") for each in numbers]
    if given and rounding in ("sum", "difference"):
        place = int(numbers[0])
        # A tensor and its step, and before or behind each a number and its step.
        joined.insert(place, given[1])
        joined.insert(place + 2, given[2])
        return joined
    return [*joined, *given]


def _known(step: Any) -> Any:
    """A step, or 1 where a range is not known yet."""
    return ops.where(step > 0, step, ops.ones_like(step))


def _levels_of_sum(x: Any, step: Any, beside: Sequence[Any], sign: float) -> Any:
    """The sum of two rounded tensors in steps of a third range.

    The file multiplies with 21 bits: (n1 * multiplier1 + n2 * multiplier2 + half) >> shift. These
    are more bits than a float32 has, so the lower 11 of the multipliers are added first.
    """
    one, other, its_step, others_step = (
        ops.stop_gradient(ops.cast(each, "float32")) for each in beside
    )
    low_bits = 2048.0
    shares = (its_step / step, others_step / step)
    shift = 20.0 - ops.maximum(_exponent(ops.maximum(*shares)), -10.0)
    upper = lower = 0.0
    for tensor, its, share, factor in (
        (one, its_step, shares[0], 1.0),
        (other, others_step, shares[1], sign),
    ):
        multiplier = ops.round(share * _power_of_two(shift)) * factor
        coarse = ops.floor(multiplier / low_bits)
        # The step of a number has more bits than ours have.
        levels = ops.round(tensor / _known(its))
        upper = upper + levels * coarse
        lower = lower + levels * (multiplier - coarse * low_bits)
    total = upper + ops.floor(lower / low_bits) + _power_of_two(shift - 12.0)
    levels = ops.floor(total / _power_of_two(shift - 11.0))
    # What a ReLU changed is not the sum any more, and what has no range yet is not in steps.
    is_sum = ops.logical_and(x == one + sign * other, ops.minimum(its_step, others_step) > 0)
    return ops.where(is_sum, levels, ops.round(x / step))


def weight_levels(w: Any, channel: int, kind: WeightTypeName) -> tuple[Any, Any]:
    """A kernel in whole steps, each output channel with a step of its own; straight-through.

    The largest weight of a channel is always 127 steps, as the converter of TFLite quantizes.
    int4 leaves 15 of the 255 values: those next to multiples of a seventh of the largest.

    Args:
        w: float32 kernel, folded.
        channel: the axis of the output channels, counted from the front.
        kind: `"int8"` or `"int4"`.

    Returns:
        A tensor of the same shape, in which zeros are exact zeros; and the steps, of a shape that
        multiplies with it.
    """
    axes = [axis for axis in range(len(w.shape)) if axis != channel]
    largest = ops.stop_gradient(ops.max(ops.abs(w), axis=axes, keepdims=True))
    # A channel of zeros has no step: any will do.
    unit = ops.where(largest > 0, largest, ops.ones_like(largest))
    # As in `step_and_zero`, a product in any case.
    step = short(unit * (1.0 / _LARGEST["int8"]))
    levels = ops.round(w / step)
    if kind == "int4":
        levels = ops.round(w / unit * _LARGEST[kind])
        levels = ops.round(levels / _LARGEST[kind] * _LARGEST["int8"])
    return straight_through(levels, w / step), step


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to the 256 or 65,535 values of a range, which it learns or observes.

    Tensors that must have one range in the file, such as the inputs of a concatenation, go through
    one layer: each call is a site with a range of its own, and the range of the layer holds all.

    Args:
        sites: how many calls there are; each is told its number.
        ranges: `"moving"` averages the extremes of the training batches; `"learnt"` trains them.
        momentum: of the moving average.
        fixed: the lowest and highest value, where TFLite knows them: sigmoid, softmax, tanh.
        clips: whether the float model clips to these values too, and no other layer does it.
        activation_type: `"int8"` or `"int16"`.
        **options: those of a Keras layer.

    A call returns the rounded tensor, and its step: 0 as long as the range is not known.

    Call arguments:
        x: a tensor of any shape.
        beside: tensors that the operator before this layer computed with, by `rounding`.
            `"product"`: the steps whose product divides all values. `"sum"` and `"difference"`:
            both rounded tensors, and the steps of both. `"scaled"`: what was rounded before, and
            its step.
        numbers: what is no tensor. `"product"`: more steps. `"sum"` and `"difference"`: where a
            number stands, 0 or 1, it, and its step. `"scaled"`: what negative numbers are
            multiplied by.
        site: which of the calls this is.
        rounding: how the file rounds the result of that operator; see `Rounding`.

    Source:
        Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference (moving ranges); Jain et al. 2020, Trained Quantization
        Thresholds (learnt ones).
    """

    def __init__(
        self,
        sites: int = 1,
        ranges: RangeName = "moving",
        momentum: float = 0.99,
        fixed: Sequence[float] | None = None,
        clips: bool = False,
        activation_type: ActivationTypeName = "int8",
        **options: Any,
    ) -> None:
        # What computes in 16 bits around it decides its dtype; it rounds in float32 itself.
        super().__init__(**{"autocast": False, **options})
        self.sites = sites
        self.ranges: RangeName = ranges
        self.momentum = momentum
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.clips = clips
        self.activation_type: ActivationTypeName = activation_type
        # Keras would warn that masks are lost, which the graph hands to whoever reads them.
        self.supports_masking = True
        self.observes = False
        """Whether a call widens the range, for examples that set the first ranges."""

    def build(self, input_shape: Any) -> None:
        """Makes the ranges, which are empty until a batch was seen."""
        if self.fixed is None:
            self.low, self.high, self.seen = (
                self.add_weight(
                    (self.sites,),
                    "zeros",
                    dtype="float32",
                    # Ranges in 16 bits would not be those of the file.
                    autocast=False,
                    # Of several devices.
                    aggregation="mean",
                    trainable=name != "seen" and self.ranges == "learnt",
                    name=name,
                )
                for name in ("low", "high", "seen")
            )
        self.built = True

    def call(
        self,
        x: Any,
        beside: Sequence[Any] = (),
        numbers: Sequence[float] = (),
        site: int = 0,
        rounding: Rounding = "even",
        training: bool = False,
    ) -> tuple[Any, Any]:
        """Observes in training, then rounds; what has no range yet passes as it is."""
        value = ops.cast(x, "float32")
        beside = _joined(rounding, beside, numbers)
        kind = self.activation_type
        if self.fixed is not None:
            rounded = rounded_to_range(value, *self.fixed, rounding, beside, kind)
            return ops.cast(rounded, x.dtype), step_and_zero(*self.fixed, kind)[0]
        if self.observes or (training and self.ranges == "moving"):
            self._observe(value, site)
        seen = ops.convert_to_tensor(self.seen)
        ends = self.extremes()
        rounded = rounded_to_range(value, *ends, rounding, beside, kind)
        rounded = ops.cast(ops.where(seen[site] > 0, rounded, value), x.dtype)
        step = ops.stop_gradient(step_and_zero(*ends, kind)[0])
        return rounded, ops.where(seen[site] > 0, step, 0.0)

    def extremes(self) -> tuple[Any, Any]:
        """The lowest and highest value of all sites; zero is always between them."""
        if self.fixed is not None:
            return self.fixed
        ends = ops.minimum(ops.min(self.low), 0.0), ops.maximum(ops.max(self.high), 0.0)
        return _off_powers(*ends) if self.activation_type == "int16" else ends

    @property
    def is_known(self) -> bool:
        """Whether each site has seen a batch."""
        return self.fixed is not None or bool(np.all(ops.convert_to_numpy(self.seen)))

    def file_range(self) -> tuple[float, float]:
        """The lowest and highest value that the file can hold, as NumPy knows them.

        Raises:
            UsageError: no batch was seen yet.
        """
        if not self.is_known:
            raise UsageError(
                f"layer {self.name!r} has no range yet: train the model for an epoch, or give "
                "quantize_aware examples"
            )
        kind = self.activation_type
        step, below = (float(np.asarray(each)) for each in step_and_zero(*self.extremes(), kind))
        return -below * step, (STEPS[kind] - below) * step

    def file_step(self) -> float:
        """How far the values that the file can hold are from each other.

        Raises:
            UsageError: no batch was seen yet.
        """
        low, high = self.file_range()
        return (high - low) / STEPS[self.activation_type]

    def _observe(self, x: Any, site: int) -> None:
        here = ops.cast(ops.arange(self.sites) == site, "float32")
        new = 1.0 - ops.convert_to_tensor(self.seen)
        for variable, found, wider in (
            (self.low, ops.min(x), ops.minimum),
            (self.high, ops.max(x), ops.maximum),
        ):
            found = ops.stop_gradient(found)
            before = ops.convert_to_tensor(variable)
            if self.observes:
                moved = wider(before, found)
            else:
                moved = self.momentum * before + (1.0 - self.momentum) * found
            moved = new * found + (1.0 - new) * moved
            variable.assign(ops.where(here > 0, moved, before))
        self.seen.assign(ops.maximum(self.seen, here))

    def compute_output_spec(self, x: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """A tensor as the input is, and a scalar."""
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor((), "float32")

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        return {
            **super().get_config(),
            "sites": self.sites,
            "ranges": self.ranges,
            "momentum": self.momentum,
            "fixed": self.fixed,
            "clips": self.clips,
            "activation_type": self.activation_type,
        }


class _Around(keras.layers.Layer):
    """A layer that computes what one or two inner layers do, on rounded numbers."""

    layer: keras.layers.Layer
    batch_norm: keras.layers.BatchNormalization | None = None

    @property
    def activation(self) -> Any:
        """What the inner layer applies last, for those who ask what an output is."""
        return getattr(self.layer, "activation", keras.activations.linear)

    def _in_float32(self) -> None:
        """Lets weights be read as they are stored: in 16 bits they would be rounded twice."""
        for variable in self.weights:
            variable._autocast = False

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Makes the inner layers from their configs."""
        inner = {
            key: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            for key, value in config.items()
            if key in ("layer", "batch_norm") and isinstance(value, dict)
        }
        return cls(**{**config, **inner})


@keras.saving.register_keras_serializable(package=_PACKAGE)
class QuantizedLayer(_Around):
    """A convolution or dense layer that computes with a rounded kernel, BatchNorm folded into it.

    The statistics of the BatchNorm stay as they are, since those of a batch are not in the file;
    gamma and beta train. The kernel is the inner layer's own: masks, constraints and regularizers
    on it work as before, and zeros stay zeros.

    A call takes a rounded tensor and its step, and returns the result, with the steps of which it
    is a multiple: one an output channel, the products of those of the tensor and the kernel. The
    bias is rounded to whole numbers of them. Sums of products are whole numbers here, as in the
    file, and exact up to 2**24.

    Args:
        layer: Conv1D/2D/3D, DepthwiseConv1D/2D, Conv1D/2D/3DTranspose or Dense.
        batch_norm: the BatchNorm behind it, or None.
        weights: `"int8"` or `"int4"`.
        **options: those of a Keras layer.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        batch_norm: keras.layers.BatchNormalization | None = None,
        weight_type: WeightTypeName = "int8",
        **options: Any,
    ) -> None:
        # Steps need more digits than 16 bits hold; the call casts what it multiplies.
        super().__init__(**{"autocast": False, **options})
        self.layer = layer
        self.supports_masking = layer.supports_masking
        self.batch_norm = batch_norm
        self.weight_type: WeightTypeName = weight_type
        # The inner layer is not called, so that another one regularizes what it would give.
        regularizer = layer.activity_regularizer
        self._regularized = regularizer and keras.layers.Identity(
            activity_regularizer=regularizer, dtype=self.dtype_policy
        )

    def build(self, input_shape: Any) -> None:
        """Builds the inner layers."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.batch_norm is not None and not self.batch_norm.built:
            self.batch_norm.build(self.layer.compute_output_shape(input_shape))
        self._in_float32()
        self.built = True

    def call(self, x: Any, step: Any) -> tuple[Any, Any]:
        """Computes with the weights as the file will have them."""
        levels, steps, bias = self._weights()
        steps = ops.reshape(steps, (-1,))
        units = ops.stop_gradient(step * steps)
        if self.compute_dtype != "float32":
            # Whole numbers of these sizes are more than 16 bits hold.
            x = ops.cast(x, self.compute_dtype)
            made = self.compute(x, *self._as_floats(levels, steps, bias))
            return self._given(made), units
        # Without a range yet it computes as if a step was 1, and rounds the weights alone.
        known = _known(step)
        whole = None
        if bias is not None:
            whole = bias / (known * steps)
            rounded = straight_through(ops.round(whole), whole)
            whole = ops.where(step > 0, rounded, whole)
        y = self._multiplied(ops.cast(x, "float32") / known, levels, whole)
        return self._given(self.layer.activation(y * (known * steps))), units

    def _given(self, y: Any) -> Any:
        return y if self._regularized is None else self._regularized(y)

    def file_weights(self, step: float | None = None) -> tuple[Any, Any]:
        """The folded and rounded kernel, and the folded bias or None; float32.

        Args:
            step: of the input, to round the bias for; None for a bias that is not rounded.
        """
        levels, steps, bias = self._weights()
        steps = ops.reshape(steps, (-1,))
        if bias is not None and step:
            bias = ops.round(bias / (step * steps)) * (step * steps)
        return self._as_floats(levels, steps, bias)

    def _as_floats(self, levels: Any, steps: Any, bias: Any) -> tuple[Any, Any]:
        from tfprune.model.layer_table import DEPTHWISE_CONVOLUTIONS, axes_of

        if isinstance(self.layer, DEPTHWISE_CONVOLUTIONS):
            return levels * ops.reshape(steps, levels.shape[-2:]), bias
        broad = [1] * len(levels.shape)
        broad[axes_of(self.layer, self.layer.kernel).outputs[0]] = -1
        return levels * ops.reshape(steps, broad), bias

    def _weights(self) -> tuple[Any, Any, Any]:
        """The folded kernel in whole steps, the steps, and the folded bias or None."""
        from tfprune.model.layer_table import DEPTHWISE_CONVOLUTIONS, axes_of

        kernel = ops.convert_to_tensor(self.layer.kernel)
        bias = ops.convert_to_tensor(self.layer.bias) if self.layer.use_bias else None
        axes = axes_of(self.layer, self.layer.kernel)
        shape = kernel.shape
        if isinstance(self.layer, DEPTHWISE_CONVOLUTIONS):
            # Channel i * multiplier + m comes from [..., i, m].
            kernel = ops.reshape(kernel, (*shape[:-2], 1, shape[-2] * shape[-1]))
            channel = len(shape) - 1
        else:
            (channel,) = axes.outputs
        if self.batch_norm is not None:
            factor, offset = scale_and_offset(self.batch_norm)
            broad = [1] * len(kernel.shape)
            broad[channel] = -1
            kernel = kernel * ops.reshape(factor, broad)
            bias = offset if bias is None else offset + bias * factor
        levels, steps = weight_levels(kernel, channel, self.weight_type)
        return ops.reshape(levels, shape), steps, bias

    def compute(self, x: Any, kernel: Any, bias: Any) -> Any:
        """What the inner layer computes, with other weights.

        Args:
            x: its input.
            kernel: in place of its kernel.
            bias: in place of its bias, or None.
        """
        return self.layer.activation(self._multiplied(x, kernel, bias))

    def _multiplied(self, x: Any, kernel: Any, bias: Any) -> Any:
        multiply = _product_of(self.layer)
        sizes: Any = ()
        if isinstance(self.layer, keras.layers.Dense) and len(x.shape) > 2:
            # TFLite adds the bias within its operator to a matrix only.
            sizes = ops.shape(x)[1:-1]
            x = ops.reshape(x, (-1, x.shape[-1]))
        y = multiply(self.layer, x, ops.cast(kernel, x.dtype))
        if bias is not None:
            y = y + ops.cast(bias, x.dtype)
        return ops.reshape(y, (-1, *sizes, y.shape[-1])) if sizes else y

    def compute_output_spec(self, x: Any, step: Any) -> tuple[Any, Any]:
        """That of the inner layer, and one number an output channel."""
        shape = self.layer.compute_output_shape(x.shape)
        return keras.KerasTensor(shape, self.compute_dtype), keras.KerasTensor(
            shape[-1:], "float32"
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        save = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "layer": save(self.layer),
            "batch_norm": None if self.batch_norm is None else save(self.batch_norm),
            "weight_type": self.weight_type,
        }


def _convolve(layer: Any, x: Any, kernel: Any) -> Any:
    if layer.padding == "causal":
        # What the layer itself does before it convolves.
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        return ops.conv(
            ops.pad(x, ((0, 0), (before, 0), (0, 0))),
            kernel,
            strides=layer.strides,
            padding="valid",
            dilation_rate=layer.dilation_rate,
        )
    return layer.convolution_op(x, kernel)


def _convolve_depthwise(layer: Any, x: Any, kernel: Any) -> Any:
    if len(kernel.shape) == 3:
        # The converter leaves the form of Keras in float.
        y = ops.depthwise_conv(
            ops.expand_dims(x, 1),
            ops.expand_dims(kernel, 0),
            strides=layer.strides * 2,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate * 2,
        )
        return ops.squeeze(y, 1)
    return ops.depthwise_conv(
        x,
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _convolve_transposed(layer: Any, x: Any, kernel: Any) -> Any:
    return ops.conv_transpose(
        x,
        kernel,
        strides=list(layer.strides),
        padding=layer.padding,
        output_padding=layer.output_padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _multiply(layer: Any, x: Any, kernel: Any) -> Any:
    return ops.matmul(x, kernel)


def _product_of(layer: Any) -> Callable[[Any, Any, Any], Any]:
    """How a layer computes with a kernel that is given."""
    from tfprune.model.layer_table import DEPTHWISE_CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

    if isinstance(layer, keras.layers.Dense):
        return _multiply
    if isinstance(layer, TRANSPOSED_CONVOLUTIONS):
        return _convolve_transposed
    return _convolve_depthwise if isinstance(layer, DEPTHWISE_CONVOLUTIONS) else _convolve


@keras.saving.register_keras_serializable(package=_PACKAGE)
class QuantizedScale(_Around):
    """A layer that scales and shifts each channel, as a product and a sum of integers.

    It stands for Rescaling, Normalization, and a BatchNorm that no convolution takes in.

    Args:
        layer: what it stands for.
        ranges: see `FakeQuantize`, of which it holds one for the product.
        momentum: see `FakeQuantize`.
        activation_type: see `FakeQuantize`; constants are of this type too.
        **options: those of a Keras layer.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        ranges: RangeName = "moving",
        momentum: float = 0.99,
        activation_type: ActivationTypeName = "int8",
        **options: Any,
    ) -> None:
        # Pixels have more digits than 16 bits hold.
        super().__init__(**{"autocast": False, **options})
        self.layer = layer
        self.supports_masking = layer.supports_masking
        self.ranges: RangeName = ranges
        self.momentum = momentum
        self.activation_type: ActivationTypeName = activation_type
        if has_offset(layer):
            self.product = FakeQuantize(
                1,
                ranges,
                momentum,
                activation_type=activation_type,
                name=f"{self.name}_product",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape: Any) -> None:
        """Builds the inner layers."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if has_offset(self.layer):
            self.product.build(input_shape)
        self._in_float32()
        self.built = True

    def call(self, x: Any, step: Any, training: bool = False) -> tuple[Any, ...]:
        """Multiplies, rounds and adds."""
        (factor, its_step), (offset, offsets_step) = self._constants()
        unit = ops.stop_gradient(step * its_step)
        y = x * ops.cast(factor, x.dtype)
        if not has_offset(self.layer):
            return y, unit
        if self.activation_type == "int16":
            y, step = self.product(y, training=training)
        else:
            y, step = self.product(y, [unit], rounding="product", training=training)
        offset = ops.cast(offset, x.dtype)
        return y + offset, y, offset, step, offsets_step

    def file_constants(self) -> tuple[Any, Any]:
        """What the input is multiplied by, and what is added: rounded, float32."""
        (factor, _), (offset, _) = self._constants()
        return factor, offset

    def _constants(self) -> Any:
        """Rounded, each with its step."""
        return [
            rounded_constant(each, self.activation_type) for each in scale_and_offset(self.layer)
        ]

    def compute(self, x: Any, factor: Any, offset: Any) -> Any:
        """The same with other constants.

        Args:
            x: the input.
            factor: what it is multiplied by.
            offset: what is added to the product.
        """
        y = x * ops.cast(factor, x.dtype)
        return self.product(y)[0] + ops.cast(offset, x.dtype) if has_offset(self.layer) else y

    def compute_output_spec(self, x: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """A tensor as the input is, and what `FakeQuantize` needs beside it."""
        shapes = [x.shape, ()]
        if has_offset(self.layer):
            shapes = [x.shape, x.shape, scale_and_offset(self.layer)[1].shape, (), ()]
        return tuple(
            keras.KerasTensor(shape, x.dtype if place < 3 and shape else "float32")
            for place, shape in enumerate(shapes)
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "ranges": self.ranges,
            "momentum": self.momentum,
            "activation_type": self.activation_type,
        }


@keras.saving.register_keras_serializable(package=_PACKAGE)
class QuantizedPReLU(_Around):
    """A PReLU whose slopes are rounded: the largest is 127 steps, and all have the same step.

    Args:
        layer: the PReLU.
        **options: those of a Keras layer.
    """

    def __init__(self, layer: keras.layers.PReLU, **options: Any) -> None:
        # Slopes in 16 bits would be rounded twice.
        super().__init__(**{"autocast": False, **options})
        self.layer = layer
        self.supports_masking = layer.supports_masking

    def build(self, input_shape: Any) -> None:
        """Builds the inner layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self._in_float32()
        self.built = True

    def call(self, x: Any) -> Any:
        """Multiplies negative numbers by the rounded slopes."""
        return self.compute(x, self.file_slopes())

    def file_slopes(self) -> Any:
        """The rounded slopes; float32."""
        slopes = ops.convert_to_tensor(self.layer.alpha)
        # One channel, so one step.
        levels, step = weight_levels(ops.expand_dims(slopes, -1), len(slopes.shape), "int8")
        return ops.squeeze(levels * step, -1)

    def compute(self, x: Any, slopes: Any) -> Any:
        """The same with other slopes.

        Args:
            x: the input.
            slopes: of a shape that multiplies with one example.
        """
        # What the converter knows as one operator.
        return ops.relu(x) + (-ops.cast(slopes, x.dtype)) * ops.relu(-x)

    def compute_output_spec(self, x: Any) -> Any:
        """A tensor as the input is."""
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
        }


def rounded_constant(value: Any, kind: ActivationTypeName = "int8") -> tuple[Any, Any]:
    """A constant as TFLite quantizes it: one range for all of it, with zero in it; and its step.

    Args:
        value: float32 tensor of any shape.
        kind: see `step_and_zero`.
    """
    low, high = (
        ops.stop_gradient(end)
        for end in (ops.minimum(ops.min(value), 0.0), ops.maximum(ops.max(value), 0.0))
    )
    return rounded_to_range(value, low, high, kind=kind), step_and_zero(low, high, kind)[0]


def has_offset(layer: Any) -> bool:
    """Whether a layer adds something to what it scales, which then is an operator of its own.

    Args:
        layer: a BatchNormalization, Rescaling or Normalization.
    """
    return not isinstance(layer, keras.layers.Rescaling) or bool(np.any(layer.offset))


def scale_and_offset(layer: Any) -> tuple[Any, Any]:
    """What a layer multiplies each channel by, and what it then adds; float32, along the last axis.

    Args:
        layer: a BatchNormalization, Rescaling or Normalization that is built.
    """
    if isinstance(layer, keras.layers.Rescaling):
        factor, offset = (
            ops.convert_to_tensor(each, "float32") for each in (layer.scale, layer.offset)
        )
        return factor, offset
    if isinstance(layer, keras.layers.Normalization):
        mean, variance = (
            ops.cast(ops.convert_to_tensor(each), "float32")
            for each in (layer.mean, layer.variance)
        )
        factor = 1.0 / ops.maximum(ops.sqrt(variance), keras.config.epsilon())
        return factor, -mean * factor
    factor = ops.rsqrt(ops.convert_to_tensor(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        factor = factor * ops.convert_to_tensor(layer.gamma)
    offset = -ops.convert_to_tensor(layer.moving_mean) * factor
    return factor, offset + ops.convert_to_tensor(layer.beta) if layer.center else offset
