"""The layers of a quantization-aware model: they compute with the numbers that an int8 file has.

Every value is rounded where the file rounds it, and gradients pass as if it was not: the
straight-through estimator of Bengio et al. 2013. `tfprune.quantize_aware` puts them into models.

Keras may be imported in the middle of one of our modules, and these classes are registered then, so
this module imports none that needs Keras before it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.vocabulary import RangeName, WeightTypeName

STEPS = 255
"""Steps between the lowest and the highest int8 value."""
# A range is never empty: TFLite divides by its step.
_LEAST_STEP = 1e-6
# What int8 stores for the lowest value is -128.
_MIDDLE = 128.0
# A bit more than a half, since float32 is not exact where the integers of the file are.
_HALF = 0.5 + 1e-4
# int8 weights are symmetric, and -128 is not used, as TFLite asks for.
_LARGEST = {"int8": 127.0, "int4": 7.0}
_PACKAGE = "tfprune"


def straight_through(rounded: Any, clipped: Any) -> Any:
    """The rounded value, with the gradient of the clipped one.

    Args:
        rounded: what the file has.
        clipped: the same before rounding, of the same shape.
    """
    # Exactly `rounded`: the difference is zero.
    return ops.stop_gradient(rounded) + (clipped - ops.stop_gradient(clipped))


def step_and_zero(low: Any, high: Any) -> tuple[Any, Any]:
    """The quantization step of a range, and the steps from its lowest value to zero.

    Example:
        ```python
        step, below = step_and_zero(-1.0, 1.0)  # 0.00784, 128.0
        ```

    Args:
        low: the lowest value, 0 or less.
        high: the highest value, 0 or more.

    Returns:
        The step; and a whole number of steps, so that zero is a value of the file.
    """
    step = ops.maximum((high - low) / STEPS, _LEAST_STEP)
    return step, ops.clip(ops.floor(-low / step + _HALF), 0, STEPS)


def rounded_to_range(x: Any, low: Any, high: Any, averaged: bool = False) -> Any:
    """Rounds to the 256 values of a range, and clips to it; straight-through.

    A tie goes up, as in most kernels of TFLite.

    Args:
        x: float32 tensor.
        low: scalar, 0 or less.
        high: scalar, 0 or more.
        averaged: whether an average pooling gives x, which has many ties. There TFLite rounds the
            stored integers away from zero.
    """
    low, high = ops.convert_to_tensor(low, "float32"), ops.convert_to_tensor(high, "float32")
    step, below = (ops.stop_gradient(each) for each in step_and_zero(low, high))
    # The ends are those of the file; their gradients are those of the range.
    lowest = straight_through(-below * step, low)
    highest = straight_through((STEPS - below) * step, high)
    clipped = ops.minimum(ops.maximum(x, lowest), highest)
    steps = clipped / step
    if averaged:
        stored = steps + below - _MIDDLE
        stored = ops.sign(stored) * ops.floor(ops.abs(stored) + _HALF)
        return straight_through((stored - below + _MIDDLE) * step, clipped)
    return straight_through(ops.floor(steps + _HALF) * step, clipped)


def rounded_weights(w: Any, channel: int, kind: WeightTypeName) -> Any:
    """Rounds a kernel symmetrically, each output channel with a step of its own; straight-through.

    The largest weight of a channel is always 127 steps, as the converter of TFLite quantizes.
    int4 leaves 15 of the 255 values: those next to multiples of a seventh of the largest.

    Args:
        w: float32 kernel, folded.
        channel: the axis of the output channels, counted from the front.
        kind: `"int8"` or `"int4"`.

    Returns:
        A tensor of the same shape. Zeros are exact zeros.
    """
    axes = [axis for axis in range(len(w.shape)) if axis != channel]
    largest = ops.stop_gradient(ops.max(ops.abs(w), axis=axes, keepdims=True))
    # A channel of zeros has no step: any will do.
    unit = ops.where(largest > 0, largest, ops.ones_like(largest))
    levels = ops.round(w / unit * _LARGEST[kind])
    if kind == "int4":
        levels = ops.round(levels / _LARGEST[kind] * _LARGEST["int8"])
    return straight_through(levels * (unit / _LARGEST["int8"]), w)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to the 256 values of a range, which it learns or observes.

    Tensors that must have one range in the file, such as the inputs of a concatenation, go through
    one layer: each call is a site with a range of its own, and the range of the layer holds all.

    Args:
        sites: how many calls there are; each is told its number.
        ranges: `"moving"` averages the extremes of the training batches; `"learnt"` trains them.
        momentum: of the moving average.
        fixed: the lowest and highest value, where TFLite knows them: sigmoid, softmax, tanh.
        **options: those of a Keras layer.

    Call arguments:
        x: a tensor of any shape.
        site: which of the calls this is.
        averaged: see `rounded_to_range`.

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
        **options: Any,
    ) -> None:
        # What computes in 16 bits around it decides its dtype; it rounds in float32 itself.
        super().__init__(**{"autocast": False, **options})
        self.sites = sites
        self.ranges: RangeName = ranges
        self.momentum = momentum
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
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

    def call(self, x: Any, site: int = 0, averaged: bool = False, training: bool = False) -> Any:
        """Observes in training, then rounds; what has no range yet passes as it is."""
        value = ops.cast(x, "float32")
        if self.fixed is not None:
            return ops.cast(rounded_to_range(value, *self.fixed, averaged), x.dtype)
        if self.observes or (training and self.ranges == "moving"):
            self._observe(value, site)
        seen = ops.convert_to_tensor(self.seen)[site] > 0
        rounded = rounded_to_range(value, *self.extremes(), averaged)
        return ops.cast(ops.where(seen, rounded, value), x.dtype)

    def extremes(self) -> tuple[Any, Any]:
        """The lowest and highest value of all sites; zero is always between them."""
        if self.fixed is not None:
            return self.fixed
        return ops.minimum(ops.min(self.low), 0.0), ops.maximum(ops.max(self.high), 0.0)

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
        low, high = (np.float64(np.asarray(each)) for each in self.extremes())
        step = max((high - low) / STEPS, _LEAST_STEP)
        below = np.clip(np.floor(-low / step + _HALF), 0, STEPS)
        return float(-below * step), float((STEPS - below) * step)

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

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        """Shapes do not change."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        return {
            **super().get_config(),
            "sites": self.sites,
            "ranges": self.ranges,
            "momentum": self.momentum,
            "fixed": self.fixed,
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
        super().__init__(**options)
        self.layer = layer
        self.batch_norm = batch_norm
        self.weight_type: WeightTypeName = weight_type

    def build(self, input_shape: Any) -> None:
        """Builds the inner layers."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.batch_norm is not None and not self.batch_norm.built:
            self.batch_norm.build(self.layer.compute_output_shape(input_shape))
        self._in_float32()
        self.built = True

    def call(self, x: Any) -> Any:
        """Computes with the weights as the file will have them."""
        return self.compute(x, *self.file_weights())

    def file_weights(self) -> tuple[Any, Any]:
        """The folded and rounded kernel, and the folded bias or None; float32."""
        from tfprune.model.layer_table import DEPTHWISE_CONVOLUTIONS, axes_of

        kernel = ops.convert_to_tensor(self.layer.kernel)
        bias = ops.convert_to_tensor(self.layer.bias) if self.layer.use_bias else None
        axes = axes_of(self.layer, self.layer.kernel)
        if isinstance(self.layer, DEPTHWISE_CONVOLUTIONS):
            # Channel i * multiplier + m comes from [..., i, m].
            shape = kernel.shape
            kernel = ops.reshape(kernel, (*shape[:-2], 1, shape[-2] * shape[-1]))
            channel = len(shape) - 1
        else:
            shape, (channel,) = None, axes.outputs
        if self.batch_norm is not None:
            factor, offset = scale_and_offset(self.batch_norm)
            broad = [1] * len(kernel.shape)
            broad[channel] = -1
            kernel = kernel * ops.reshape(factor, broad)
            bias = offset if bias is None else offset + bias * factor
        kernel = rounded_weights(kernel, channel, self.weight_type)
        return (kernel if shape is None else ops.reshape(kernel, shape)), bias

    def compute(self, x: Any, kernel: Any, bias: Any) -> Any:
        """What the inner layer computes, with other weights.

        Args:
            x: its input.
            kernel: in place of its kernel.
            bias: in place of its bias, or None.
        """
        multiply = _product_of(self.layer)
        sizes: Any = ()
        if isinstance(self.layer, keras.layers.Dense) and len(x.shape) > 2:
            # TFLite adds the bias within its operator to a matrix only.
            sizes = ops.shape(x)[1:-1]
            x = ops.reshape(x, (-1, x.shape[-1]))
        y = multiply(self.layer, x, ops.cast(kernel, x.dtype))
        if bias is not None:
            y = y + ops.cast(bias, x.dtype)
        y = self.layer.activation(y)
        return ops.reshape(y, (-1, *sizes, y.shape[-1])) if sizes else y

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inner layer."""
        return self.layer.compute_output_shape(input_shape)

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
    return layer.convolution_op(x, kernel)


def _convolve_depthwise(layer: Any, x: Any, kernel: Any) -> Any:
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
    """A layer that scales and shifts each channel, as a product and a sum of int8 numbers.

    It stands for Rescaling, Normalization, and a BatchNorm that no convolution takes in.

    Args:
        layer: what it stands for.
        ranges: see `FakeQuantize`, of which it holds one for the product.
        momentum: see `FakeQuantize`.
        **options: those of a Keras layer.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        ranges: RangeName = "moving",
        momentum: float = 0.99,
        **options: Any,
    ) -> None:
        # Pixels have more digits than 16 bits hold.
        super().__init__(**{"autocast": False, **options})
        self.layer = layer
        self.ranges: RangeName = ranges
        self.momentum = momentum
        if has_offset(layer):
            self.product = FakeQuantize(
                1, ranges, momentum, name=f"{self.name}_product", dtype=self.dtype_policy
            )

    def build(self, input_shape: Any) -> None:
        """Builds the inner layers."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if has_offset(self.layer):
            self.product.build(input_shape)
        self._in_float32()
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """Multiplies, rounds and adds."""
        return self.compute(x, *self.file_constants(), training)

    def file_constants(self) -> tuple[Any, Any]:
        """What the input is multiplied by, and what is added: rounded, float32."""
        factor, offset = scale_and_offset(self.layer)
        return rounded_constant(factor), rounded_constant(offset)

    def compute(self, x: Any, factor: Any, offset: Any, training: bool = False) -> Any:
        """The same with other constants.

        Args:
            x: the input.
            factor: what it is multiplied by.
            offset: what is added to the product.
            training: whether the range of the product is observed.
        """
        y = x * ops.cast(factor, x.dtype)
        if not has_offset(self.layer):
            return y
        return self.product(y, training=training) + ops.cast(offset, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shapes do not change."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "ranges": self.ranges,
            "momentum": self.momentum,
        }


def rounded_constant(value: Any) -> Any:
    """A constant as TFLite quantizes it: one range for all of it, with zero in it.

    Args:
        value: float32 tensor of any shape.
    """
    low, high = ops.minimum(ops.min(value), 0.0), ops.maximum(ops.max(value), 0.0)
    return rounded_to_range(value, ops.stop_gradient(low), ops.stop_gradient(high))


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
