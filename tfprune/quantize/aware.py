"""`quantize_aware`: from a float model to one that trains with rounded numbers, and back."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.data.adapting import Data, examples
from tfprune.errors import UsageError, check_package, did_you_mean
from tfprune.model.cloning import compile_like
from tfprune.model.graph import Call, functional, named_layers, path_matches
from tfprune.model.inlining import Arguments, inlined, rebuilt
from tfprune.model.quantized_layers import (
    FakeQuantize,
    QuantizedLayer,
    QuantizedPReLU,
    QuantizedScale,
)
from tfprune.quantize.building import Builder, is_quantize_aware, split_up
from tfprune.vocabulary import (
    ACTIVATION_TYPES,
    QUANTIZER,
    RANGES,
    WEIGHT_TYPES,
    ActivationTypeName,
    RangeName,
    WeightTypeName,
)

_EXAMPLES = 512
_BATCH = 32
# More names than these fill a line.
_NAMED = 3


def quantize_aware(
    model: keras.Model,
    data: Data | None = None,
    *,
    weights: WeightTypeName = "int8",
    activations: ActivationTypeName = "int8",
    ranges: RangeName = "moving",
    momentum: float = 0.99,
    exclude: str | Sequence[str] = (),
) -> keras.Model:
    """Makes a model that trains with the rounded numbers of its int8 or int16x8 file.

    Example:
        ```python
        aware = tfprune.quantize_aware(model, train_images[:500])  # compiled as the model is
        aware.optimizer.learning_rate = 1e-4
        aware.fit(train_images, train_labels, epochs=2)
        tfprune.export(aware, "out", ["tflite-int8"])  # no calibration images
        ```

    The new model has the layers of `model`, each weight rounded per output channel to 255
    symmetric values, each activation to the values of its tensor's range. Rounding happens where
    the file rounds: behind each operator of TFLite, into which a BatchNorm and a ReLU that follow
    a layer are folded; concatenated tensors have one range; sigmoids, softmaxes and tanh have the
    range that TFLite prescribes. A file that XNNPACK runs gives the same numbers, bit for bit, up
    to softmaxes, GELU, hard-swish, PReLU and what stays in float. A file with int16 activations is
    within a few of its 65,535 values, and computes in float what TFLite has no such operator for.
    Gradients pass as if nothing was rounded (straight-through), and the weights that train are the
    float ones.

    BatchNorm folds with the statistics that it has: they do not move in this training, so that
    training and file compute the same from the first step. gamma and beta train. Train the float
    model first.

    A nested model becomes a part of one flat graph. A layer without a rule stays in float, and a
    warning names it with the reason.

    Args:
        model: a functional or built Sequential model; it is not changed.
        data: examples that set the first ranges, values as the model takes them, in any form that
            `tfprune.data.examples` takes; up to 512 are used. Without them the first training
            batches set the ranges, and until then nothing is rounded.
        weights: `"int8"`, or `"int4"` for 15 values a channel. The file stores bytes in both
            cases; what few values save shows when it is compressed, and in `c-array-lut`.
        activations: `"int8"`, for `tflite-int8` and the C arrays; or `"int16"`, for
            `tflite-int16x8`: where int8 costs too much accuracy and the device has such kernels.
        ranges: `"moving"`: averages of the extremes of training batches. `"learnt"`: trained like
            weights, from the ranges of `data`.
        momentum: of the moving average.
        exclude: layers that stay in float, by name or glob.

    Returns:
        A functional model, compiled as `model` is. Masks, `PruneWeights` and constraints work on
        the kernels inside its layers, and zeros are zeros of the file.

    Raises:
        UsageError: the model has no graph, is quantization-aware already, nothing in it can be
            rounded, a name is unknown, learnt ranges have no data, or int16 activations lack
            `pip install 'tfprune[quantizer]'`, which writes their files.

    Source:
        Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference; Krishnamoorthi 2018, arXiv:1806.08342 (frozen BatchNorm).
    """
    tables: dict[str, tuple[str, Collection[str]]] = {
        "weights": (weights, WEIGHT_TYPES),
        "activations": (activations, ACTIVATION_TYPES),
        "ranges": (ranges, RANGES),
    }
    for name, (value, known) in tables.items():
        if value not in known:
            raise UsageError(f"{name} is {value!r}: choose one of {', '.join(known)}")
    if not 0 <= momentum < 1:
        raise UsageError(f"momentum is {momentum:g}: give 0 or more, and less than 1")
    if activations == "int16":
        check_package("activations='int16'", QUANTIZER, "quantizer")
    if ranges == "learnt" and data is None:
        raise UsageError('ranges="learnt" start from those of examples: give data')
    if is_quantize_aware(model):
        raise UsageError(
            f"model {model.name!r} is quantization-aware already: train it further, or give the "
            "float model"
        )
    functional(model)
    some = None if data is None else examples(data, _EXAMPLES, model=model, what="data").inputs
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    flat = split_up(inlined(model))
    for pattern in patterns:
        if not any(path_matches(path, pattern) for path in named_layers(flat)):
            raise UsageError(
                f"exclude: model {model.name!r} has no layer {pattern!r}: "
                + did_you_mean(pattern, list(named_layers(flat)))
            )
    builder = Builder(flat, weights, ranges, momentum, activations, patterns)
    aware = builder.build()
    if not any(isinstance(layer, QuantizedLayer) for layer in aware.layers):
        raise UsageError(
            f"model {model.name!r} has no layer that can be rounded: {_said(builder.floats)}"
        )
    if builder.floats:
        warnings.warn(
            f"quantize_aware: {len(builder.floats)} of the layers stay in float: "
            f"{_said(builder.floats)}",
            stacklevel=2,
        )
    if some is not None:
        observe(aware, some)
    compile_like(model, aware)
    return aware


def _said(floats: dict[str, str]) -> str:
    named = [f"{name!r} {reason}" for name, reason in list(floats.items())[:_NAMED]]
    more = len(floats) - len(named)
    return "; ".join([*named, *([f"and {more} more"] if more else [])])


def ranges_of(model: keras.Model) -> list[FakeQuantize]:
    """The layers of a quantization-aware model that round activations.

    Args:
        model: from `quantize_aware`.
    """
    return [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuantize)]


def activation_type(model: keras.Model) -> ActivationTypeName:
    """How a quantization-aware model rounds its activations.

    Args:
        model: from `quantize_aware`.
    """
    return ranges_of(model)[0].activation_type


def observe(model: keras.Model, inputs: dict[str, np.ndarray]) -> None:
    """Widens the ranges of a quantization-aware model to what examples need.

    Args:
        model: from `quantize_aware`; changed in place.
        inputs: arrays by the names of the inputs, one row an example.
    """
    count = min(len(array) for array in inputs.values())
    # A model of a fixed batch takes no other.
    size = model.inputs[0].shape[0] or _BATCH
    layers = ranges_of(model)
    for layer in layers:
        layer.observes = True
    try:
        for start in range(0, max(count, size), size):
            places = np.arange(start, start + size) % count
            batch = [
                keras.ops.convert_to_tensor(array[places], dtype=x.dtype)
                for array, x in zip(inputs.values(), model.inputs, strict=True)
            ]
            structure = functional(model)._inputs_struct
            model(keras.tree.pack_sequence_as(structure, batch), training=False)
    finally:
        for layer in layers:
            layer.observes = False


def finished(model: keras.Model) -> keras.Model:
    """The float model inside a quantization-aware one: its layers with the weights as trained.

    Example:
        ```python
        finished(tfprune.quantize_aware(model)).predict(x)  # as model.predict(x)
        ```

    Args:
        model: from `quantize_aware`.

    Returns:
        A new, uncompiled functional model without any rounding. Nested models stay inlined.
    """

    def emit(call: Call, arguments: Arguments) -> Any:
        (args, kwargs), operation = arguments, call.operation
        made = None
        if isinstance(operation, FakeQuantize):
            made = args[0]
            if operation.clips and operation.fixed is not None:
                made = keras.ops.clip(made, *operation.fixed)
        elif isinstance(operation, QuantizedLayer):
            made = operation.layer(args[0])
            made = made if operation.batch_norm is None else operation.batch_norm(made)
        elif isinstance(operation, QuantizedPReLU | QuantizedScale):
            made = operation.layer(args[0])
        if made is not None:
            # Only what rounds reads the steps beside it.
            return [made] * len(call.outputs)
        return operation(*args, **kwargs)

    return rebuilt(inlined(model), emit, model.name)


def without_rounding(model: keras.Model) -> keras.Model:
    """The float model inside a quantization-aware one; any other model as it is.

    Args:
        model: any model.
    """
    return finished(model) if is_quantize_aware(model) else model
