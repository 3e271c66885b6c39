"""Better integers for models that cannot be trained: equalised channels, corrected biases."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tfprune.data.adapting import Data, examples
from tfprune.errors import UsageError
from tfprune.model import cloning
from tfprune.model.activations import is_activation
from tfprune.model.graph import Call, calls, functional
from tfprune.model.layer_table import CONVOLUTIONS, DEPTHWISE_CONVOLUTIONS, TypeTable
from tfprune.quantize.building import is_quantize_aware
from tfprune.weights.oneshot import MOST_BITS, round_weights
from tfprune.weights.selection import kernels

# Ranges of neighbours depend on each other; more rounds change nothing that counts.
_ROUNDS = 20
_SETTLED = 1e-3
# Enough for means over whole images.
_IMAGES = 256
_BATCH = 64
# By type: a subclass that computes in its own way may do anything with its kernel.
_WITH_KERNEL = TypeTable(
    dict.fromkeys((layers.Dense, *CONVOLUTIONS, *DEPTHWISE_CONVOLUTIONS), True)
)
_NORM = TypeTable({layers.BatchNormalization: True})
_FUNCTION = TypeTable({layers.ReLU: "relu", layers.Activation: "activation"})
# Of c * x they give c times what they give of x, channel by channel, for c above 0.
_PASSING = TypeTable(
    dict.fromkeys(
        (
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.MaxPooling3D,
            layers.AveragePooling1D,
            layers.AveragePooling2D,
            layers.AveragePooling3D,
            layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
            layers.GlobalAveragePooling3D,
            layers.GlobalMaxPooling1D,
            layers.GlobalMaxPooling2D,
            layers.GlobalMaxPooling3D,
            layers.ZeroPadding1D,
            layers.ZeroPadding2D,
            layers.ZeroPadding3D,
            layers.UpSampling1D,
            layers.Dropout,
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.SpatialDropout3D,
            layers.Identity,
            layers.LeakyReLU,
            layers.PReLU,
        ),
        True,
    )
)


@dataclass(frozen=True)
class _Pair:
    """Channels that one layer writes and only the next one reads.

    Attributes:
        first: the layer with the kernel that writes them.
        norm: the BatchNorm behind it; None where there is none.
        second: the layer whose kernel reads them.
    """

    first: Any
    norm: layers.BatchNormalization | None
    second: Any


def equalize(model: keras.Model) -> keras.Model:
    """Scales channels so that the weights before and after them have ranges alike; exact in float.

    Example:
        ```python
        convolutions = [keras.layers.Conv2D(8, 3, activation="relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((8, 8, 3)), *convolutions, keras.layers.Flatten()])
        balanced = tfprune.equalize(model)
        tfprune.export(balanced, "out", ["tflite-int8"], x)
        ```

    Between two layers with kernels, where only ReLU, leaky ReLU, pooling, padding and dropout lie,
    each channel is divided by a number and the weights that read it are multiplied with the same
    number. Zeros stay zeros. It helps where one scale holds for a whole kernel, and where a
    channel of an activation has another range than its neighbours. TFLite's int8 has a scale for
    each output channel of a kernel: measure both files before you take one
    (`tfprune.precision` shows where int8 hurts).

    Not scaled: channels that are added, concatenated or read by several layers; those before
    ReLU6, sigmoid and other functions that a scale does not pass; layers that are called twice,
    and those of nested models.

    Args:
        model: A functional or built Sequential model; it is not changed.

    Returns:
        A new, uncompiled model with the same outputs up to rounding.

    Raises:
        UsageError: Nothing can be equalised, or the model has no graph or is quantization-aware.

    Source:
        Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
        https://arxiv.org/abs/1906.04721, section 4.1.
    """
    _check_float(model, "equalize")
    twin = cloning.copy(model)
    pairs = list(_pairs(twin))
    if not pairs:
        raise UsageError(
            f"model {model.name!r} has no two layers whose channels can be equalised: between them "
            "may be ReLU, pooling and padding, and no sum or ReLU6"
        )
    for _ in range(_ROUNDS):
        largest = max([_equalize(pair) for pair in pairs])
        if largest < _SETTLED:
            break
    return twin


def _check_float(model: keras.Model, what: str) -> None:
    if is_quantize_aware(model):
        raise UsageError(
            f"{what}: model {model.name!r} is quantization-aware: give the float model that it was "
            "made of"
        )


def _pairs(model: keras.Model) -> Iterator[_Pair]:
    readers: dict[int, list[Call]] = {}
    every = list(calls(model))
    once = _called_once(every)
    for call in every:
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    ends = {id(tensor) for tensor in functional(model).outputs}

    def only_reader(call: Call) -> Call | None:
        (output,) = call.outputs
        found = readers.get(id(output), [])
        return found[0] if len(found) == 1 and id(output) not in ends else None

    for call in every:
        first = call.operation
        if id(first) not in once or not _scalable(first) or len(call.outputs) != 1:
            continue
        norm = None
        here = only_reader(call) if _passes(first) else None
        if here is not None and _is_norm(here, once) and here.operation.scale and is_linear(first):
            norm = here.operation
            here = only_reader(here)
        while here is not None and _passes_on(here.operation):
            here = only_reader(here)
        if here is not None and id(here.operation) in once and _reads_channels(here.operation):
            yield _Pair(first, norm, here.operation)


def _called_once(every: Iterable[Call]) -> set[int]:
    """The ids of the operations that a graph calls once; Keras' own nodes count other graphs."""
    counts = Counter(id(call.operation) for call in every)
    return {key for key, count in counts.items() if count == 1}


def _scalable(layer: Any) -> bool:
    """Whether the output channels of a layer can be scaled by its kernel."""
    if not _WITH_KERNEL.of(layer) or not _last(layer):
        return False
    # A depthwise kernel with several filters for a channel has them side by side.
    return getattr(layer, "depth_multiplier", 1) == 1


def _last(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _is_norm(call: Call, once: set[int]) -> bool:
    """Whether a call is of a BatchNorm of the last axis, which is called once."""
    layer: Any = call.operation
    if not _NORM.of(layer) or id(layer) not in once:
        return False
    return layer.axis in (-1, len(call.inputs[0].shape) - 1)


def is_linear(layer: Any) -> bool:
    """Whether a layer with a kernel has no activation."""
    return layer.activation is None or is_activation(layer.activation, "linear")


def _passes(layer: Any) -> bool:
    return is_linear(layer) or is_activation(layer.activation, "relu", "leaky_relu")


def _passes_on(layer: Any) -> bool:
    function = _FUNCTION.of(layer)
    if function == "relu":
        return layer.max_value is None and not layer.threshold
    if function == "activation":
        return bool(is_activation(layer.activation, "relu", "leaky_relu", "linear"))
    return bool(_PASSING.of(layer)) and _last(layer)


def _reads_channels(layer: Any) -> bool:
    if not _WITH_KERNEL.of(layer) or not _last(layer):
        return False
    return getattr(layer, "groups", 1) == 1


def _equalize(pair: _Pair) -> float:
    """Scales the channels of a pair; how far the largest change is from none, as a logarithm."""
    first, second = _numbers(pair.first.kernel), _numbers(pair.second.kernel)
    out = first.ndim - 2 if isinstance(pair.first, DEPTHWISE_CONVOLUTIONS) else first.ndim - 1
    written = _ranges(first, out)
    if pair.norm is not None:
        variance = _numbers(pair.norm.moving_variance) + pair.norm.epsilon
        written = written * np.abs(_numbers(pair.norm.gamma)) / np.sqrt(variance)
    read = _ranges(second, second.ndim - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.sqrt(written / read)
    # What is dead on either side has no range to equalise.
    factor = np.where(np.isfinite(factor) & (factor > 0), factor, 1.0)
    scaled = [pair.norm.gamma] if pair.norm is not None else [pair.first.kernel]
    if pair.norm is not None and pair.norm.center:
        scaled.append(pair.norm.beta)
    elif pair.norm is None and pair.first.use_bias:
        scaled.append(pair.first.bias)
    for variable in scaled:
        shape = [1] * len(variable.shape)
        shape[out if len(variable.shape) > 1 else 0] = -1
        variable.assign(_numbers(variable) / factor.reshape(shape))
    shape = [1] * second.ndim
    shape[-2] = -1
    pair.second.kernel.assign(second * factor.reshape(shape))
    return float(np.abs(np.log(factor)).max(initial=0.0))


def _numbers(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _ranges(kernel: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(place for place in range(kernel.ndim) if place != axis)
    found: np.ndarray = np.abs(kernel).max(axis=others)
    return found


def correct_biases(model: keras.Model, data: Data, *, bits: int = 8) -> keras.Model:
    """Moves biases so that rounded weights give the means of the weights as they are.

    Example:
        ```python
        corrected = tfprune.correct_biases(model, x[:256], bits=4)
        tfprune.export(corrected, "out", ["tflite-recipe"], recipe="weight_only_wi4_afp32")
        ```

    Rounding a kernel shifts the mean of each output channel. Layer by layer, each after those
    before it, the shift is measured on examples and taken from the bias, or from the beta of the
    BatchNorm behind. The weights themselves stay as they are: the file rounds them. The fewer
    bits, the more it matters.

    Args:
        model: A functional or built Sequential model; it is not changed.
        data: Some hundred training examples, in any form that `tfprune.data.examples` takes;
            targets are not looked at. 256 are run.
        bits: Of one weight in the file: 8 for int8, 4 for int4.

    Returns:
        A new, uncompiled model. Its own outputs are shifted: only the file with rounded weights is
        better. Do this last, and once: a second time takes it back, and so does a training.

    Raises:
        UsageError: Bits are out of range, data do not fit the model, no layer has a bias, or the
            model is quantization-aware.

    Source:
        Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2 with appendix D: measured
        on examples.
    """
    if not 2 <= bits <= MOST_BITS:
        raise UsageError(f"bits={bits} is out of range: give 2 to {MOST_BITS}")
    _check_float(model, "correct_biases")
    inputs = _inputs(model, data)
    original, corrected = cloning.copy(model), cloning.copy(model)
    rounded = round_weights(model, bits)
    points, without = _points(rounded)
    if not points:
        raise UsageError(
            f"model {model.name!r} has no layer with a kernel and a bias or a BatchNorm behind it: "
            "nothing can be corrected"
        )
    if without:
        warnings.warn(
            f"correct_biases: {', '.join(without)} stay as they are: they have no bias, are called "
            "twice, lie in another layer or model, or compute in a way of their own",
            stacklevel=2,
        )
    for kernel, carrier in points:
        shift = _mean_at(rounded, kernel, carrier, inputs)
        shift -= _mean_at(original, kernel, carrier, inputs)
        for each in (rounded, corrected):
            bias = _bias(each.get_layer(carrier))
            bias.assign(_numbers(bias) - shift)
    return corrected


def _inputs(model: keras.Model, data: Data) -> list[np.ndarray]:
    some = examples(data, _IMAGES, model=model, what="data")
    return [np.asarray(each)[:_IMAGES] for each in some.inputs.values()]


def _points(model: keras.Model) -> tuple[list[tuple[str, str]], list[str]]:
    """Layers with kernels and the layers that carry their biases; and the paths of all others."""
    every = list(calls(model))
    once = _called_once(every)
    readers: dict[int, list[Call]] = {}
    for call in every:
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    found = []
    for call in every:
        layer: Any = call.operation
        if not _WITH_KERNEL.of(layer) or id(layer) not in once or not _last(layer):
            continue
        after = [each for output in call.outputs for each in readers.get(id(output), [])]
        carrier = layer.name if layer.use_bias else ""
        if len(after) == 1 and is_linear(layer) and _is_norm(after[0], once):
            carrier = after[0].operation.name if after[0].operation.center else ""
        if carrier:
            found.append((layer.name, carrier))
    corrected = {kernel for kernel, _ in found}
    rounded = dict.fromkeys(kernel.path for kernel in kernels(model))
    return found, [path for path in rounded if path not in corrected]


def _bias(layer: Any) -> keras.Variable:
    return layer.beta if isinstance(layer, layers.BatchNormalization) else layer.bias


def _mean_at(model: keras.Model, kernel: str, carrier: str, inputs: list[np.ndarray]) -> np.ndarray:
    """The mean of each channel behind a bias and before an activation, float64 (channels,)."""
    layer = model.get_layer(carrier)
    # A Sequential model has called its layers more often than its graph does.
    (end,) = [call.outputs[0] for call in calls(model) if call.operation is layer]
    until = keras.Model(functional(model).inputs, end)
    activation = getattr(layer, "activation", None)
    if kernel == carrier:
        layer.activation = keras.activations.linear
    try:
        total, count = np.zeros(end.shape[-1]), 0
        for start in range(0, len(inputs[0]), _BATCH):
            found = until([each[start : start + _BATCH] for each in inputs], training=False)
            values = np.asarray(keras.ops.convert_to_numpy(found), np.float64)
            values = values.reshape(-1, values.shape[-1])
            total, count = total + values.sum(axis=0), count + len(values)
    finally:
        if kernel == carrier:
            layer.activation = activation
    mean: np.ndarray = total / count
    return mean
