"""Classifiers built from `keras.applications`, for transfer learning from ImageNet weights."""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import random
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError, UsageError
from tfprune.zoo.catalogue import KERAS_APPLICATIONS, check_option, positive
from tfprune.zoo.parts import image_input, layer_seeds, logits, pixels

_IMAGENET_STD = np.array([0.229, 0.224, 0.225])
# (mean, standard deviation) of red, green and blue by which each convention normalises.
_NORMALISATION: dict[str, tuple[list[float] | None, list[float] | None]] = {
    "tf": (None, None),
    "torch": ([255 * 0.485, 255 * 0.456, 255 * 0.406], (255 * _IMAGENET_STD).tolist()),
    "caffe": ([123.68, 116.779, 103.939], [1.0, 1.0, 1.0]),
}


def application(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    name: str,
    weights: str | os.PathLike[str] = "imagenet",
    dropout: float = 0.0,
    trainable: str = "all",
    **options: Any,
) -> keras.Model:
    """Builds a net of `keras.applications` up to its global average pooling, with new logits.

    Example:
        ```python
        model = application((96, 96, 3), 5, name="MobileNetV2", weights="random", alpha=0.35)
        model.output_shape  # (None, 5)
        ```

    Pixels 0 to 255 are normalised as for the net's ImageNet weights, also with random weights or
    those of a file; `mean` and `std` are not used. For images without three channels, some nets
    (ConvNeXt, DenseNet, ResNet, VGG) have no convention, and `mean` and `std` normalise as in the
    rest of the zoo. EfficientNet holds ImageNet's mean among its weights; with random weights it
    scales pixels to 0..1.

    The graph is flat, and layers have the names that Keras gives them in a new process.

    Args:
        input_shape: (height, width, channels).
        classes: number of logits.
        mean: mean of each channel, 0 to 255; see above.
        std: standard deviation of each channel.
        seed: fixes the random initial weights, also those of the logits, and the dropout.
        name: one of `tfprune.zoo.APPLICATIONS`; also the name of the model.
        weights: "imagenet" (downloaded once into Keras' cache), "random", or the path of a file
            with weights of the same net without its top: a `*_no_top.h5` of Keras, or a file that
            `save_weights` wrote.
        dropout: share of the features that are dropped before the logits in training, 0 to 1.
        trainable: "all"; or "head", and only the logits train: the layers below are frozen, so
            that BatchNorm keeps its statistics, as Keras' guide to transfer learning advises.
        **options: options of the Keras function: `alpha` (width, above 0), `depth_multiplier` (1 or
            more) or `minimalistic` (no squeeze-and-excite, 3x3 kernels, ReLU).

    Returns:
        A model that maps float32 pixels (n, height, width, channels), 0 to 255, to (n, classes)
        logits.

    Raises:
        UsageError: options, images and weights do not fit together.
        TfpruneError: ImageNet weights cannot be downloaded.
    """
    positive("classes", classes)
    dropout = check_option("dropout", dropout)
    frozen = check_option("trainable", trainable) == "head"
    keras_options = {option: check_option(option, value) for option, value in options.items()}
    seeds = layer_seeds(seed)
    net_seed, logits_seed, dropout_seed = next(seeds), next(seeds), next(seeds)
    source = _check_weights(name, weights, input_shape)
    with _python_seed(net_seed):
        inputs, x = preprocessed_input(name, input_shape, mean, std)
        imagenet = "imagenet" if source == "imagenet" else None
        net = _keras_net(name, x, input_shape, imagenet, keras_options)
        net = _with_fresh_names(net)
    if isinstance(source, Path):
        _load(net, source, name)
    inputs, x = net.inputs[0], net.outputs[0]
    if frozen:
        # One by one: the net itself is not a layer of the model.
        for layer in net.layers:
            layer.trainable = False
    if dropout:
        x = keras.layers.Dropout(dropout, seed=dropout_seed, name="dropout")(x)
    outputs = logits(x, classes, keras.initializers.GlorotUniform(logits_seed))
    return keras.Model(inputs, outputs, name=name)


def preprocessed_input(
    name: str,
    input_shape: tuple[int, int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input for pixels 0 to 255, and the tensor that the first layer of a net takes.

    Example:
        ```python
        inputs, x = preprocessed_input("MobileNetV2", (96, 96, 3))  # x is scaled to -1..1
        ```

    Args:
        name: one of `tfprune.zoo.APPLICATIONS`.
        input_shape: (height, width, channels).
        mean: mean of each channel, used if the net has no convention for these channels.
        std: standard deviation of each channel.

    Returns:
        The input tensor, and the same after `preprocess_input` of the net's module.

    Raises:
        UsageError: the net does not take images of this shape.
    """
    net = KERAS_APPLICATIONS[name]
    inputs = pixels(input_shape)
    height, width, channels = input_shape
    if min(height, width) < net.smallest:
        raise UsageError(
            f"{name} takes images of {net.smallest}x{net.smallest} and larger, not "
            f"{height}x{width}: make them larger (image_size), or choose another model"
        )
    if net.rgb and channels != 3:
        return image_input(input_shape, mean, std)
    if net.convention == "inside":
        return inputs, inputs
    inputs, x = image_input(input_shape, *_NORMALISATION[net.convention])
    # Reordering the first kernel would save this step, but then weight files of Keras would not
    # fit.
    return inputs, keras.ops.flip(x, axis=-1) if net.convention == "caffe" else x


def _check_weights(
    name: str, weights: str | os.PathLike[str], input_shape: tuple[int, int, int]
) -> str | Path:
    """Checks `weights`; returns a file as a path."""
    if weights == "imagenet" and len(input_shape) == 3 and input_shape[-1] != 3:
        raise UsageError(
            f'weights = "imagenet" of {name} take 3 channels, not {input_shape[-1]}: '
            'give colour images, or options weights = "random"'
        )
    if weights in ("imagenet", "random"):
        return str(weights)
    if not isinstance(weights, str | os.PathLike) or not Path(weights).is_file():
        raise UsageError(
            f"weights of {name} are {str(weights)!r}, which is not a file: "
            'give "imagenet", "random" or the path of a file'
        )
    return Path(weights)


@contextlib.contextmanager
def _python_seed(seed: int) -> Iterator[None]:
    """Seeds Python's random generator within the context, and restores its state afterwards.

    The nets give no seed to their initializers and dropouts, so Keras draws one from Python's
    generator when it creates a layer.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _keras_net(
    name: str,
    x: keras.KerasTensor,
    input_shape: tuple[int, int, int],
    weights: str | None,
    options: dict[str, Any],
) -> keras.Model:
    try:
        # Keras reports downloads on stdout. It warns about image sizes without weights of their
        # own and about numbers of channels, which are both supported here.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(keras.applications, name)(
                include_top=False,
                weights=weights,
                input_tensor=x,
                input_shape=input_shape,
                pooling="avg",
                **options,
            )
    except Exception as error:
        if isinstance(error, ValueError) and "corrupted" not in str(error):
            raise UsageError(f"{name} cannot be built: {_one_line(error)}") from error
        # Keras raises a plain Exception if a server does not answer.
        download_errors = (OSError, ValueError, http.client.HTTPException)
        if weights is None or not (type(error) is Exception or isinstance(error, download_errors)):
            raise
        raise TfpruneError(
            f"ImageNet weights of {name} cannot be fetched ({_one_line(error)}): "
            'go online once, or give options weights = "random" or a file'
        ) from error


def _with_fresh_names(net: keras.Model) -> keras.Model:
    """The net with the layer names of a new process, so that they are always the same.

    Keras numbers layers without a name over all models of a process. Variables keep the names of
    their layers, so a renamed net is rebuilt.
    """
    numbered: dict[str, list[tuple[int, keras.Operation]]] = {}
    for operation in net.operations:
        kind, number = re.fullmatch(r"(.+?)(?:_(\d+))?", operation.name).groups()  # type: ignore[union-attr]
        if kind.replace("_", "") == type(operation).__name__.lower():
            numbered.setdefault(kind, []).append((int(number or 0), operation))
    fresh = True
    for kind, operations in numbered.items():
        ordered = sorted(operations, key=lambda numbered_operation: numbered_operation[0])
        for number, (_, operation) in enumerate(ordered):
            name = f"{kind}_{number}" if number else kind
            fresh &= operation.name == name
            operation.name = name
    if fresh:
        return net
    renamed = type(net).from_config(net.get_config())
    for layer in net.layers:
        twin = renamed.get_layer(layer.name)
        for variable, other in zip(twin.variables, layer.variables, strict=True):
            variable.assign(other)
        _refresh(twin)
    return renamed


def _refresh(layer: keras.Layer) -> None:
    """Updates the constants of a Normalization layer after its variables were assigned."""
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def _load(net: keras.Model, path: Path, name: str) -> None:
    """Loads a weight file as Keras loads the ImageNet weights."""
    floats = [weight for weight in net.weights if keras.backend.is_float_dtype(weight.dtype)]
    for variable in floats:
        # Keras silently skips weights that are missing in some files; they stay NaN then.
        variable.assign(keras.ops.full_like(variable, math.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.load_weights(path)
        missing = [weight.path for weight in floats if keras.ops.any(keras.ops.isnan(weight))]
        if missing:
            raise ValueError(f"no {missing[0]} in it")
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"weights in {path} do not fit {name} without its top ({_one_line(error)}): "
            "give a file of the same net and options"
        ) from error
    for layer in net.layers:
        # The published files of EfficientNet hold the deviation instead of the variance. Keras
        # corrects this with one more layer, but only if it downloads the file itself.
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            variance = keras.ops.convert_to_numpy(layer.adapt_variance)
            if variance.shape == (3,) and np.allclose(variance, _IMAGENET_STD, atol=1e-4):
                layer.adapt_variance.assign(variance * _IMAGENET_STD)
                _refresh(layer)


def _one_line(error: BaseException) -> str:
    """The shortened message of an error, since Keras may list every layer; else its type."""
    text = textwrap.shorten(str(error), 300, placeholder=" ...")
    return text.rstrip(". ") or type(error).__name__
