"""Classifiers over the nets of `keras.applications`, for transfer from their ImageNet weights."""

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
from tfprune.zoo._catalogue import KERAS_APPLICATIONS, checked
from tfprune.zoo._parts import image_input, layer_seeds, logits, pixels, positive

_IMAGENET_STD = np.array([0.229, 0.224, 0.225])
# (mean, standard deviation) of red, green and blue that each convention takes out.
_FIGURES: dict[str, tuple[list[float] | None, list[float] | None]] = {
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
    **options: Any,
) -> keras.Model:
    """A net of `keras.applications` up to its global average, and new logits.

    Pixels 0 to 255 are brought to what the net's ImageNet weights were trained on, whatever
    weights it starts from; `mean` and `std` of the images at hand are not used. The exception are
    images without three channels, where the nets that read each colour by itself (ConvNeXt,
    DenseNet, ResNet, VGG) have no convention: `mean` and `std` then normalise as in the rest of
    the zoo. EfficientNet, as Keras builds it, knows ImageNet's mean from its weights alone: random
    ones take 0..1.

    The graph is flat, and layers keep the names that Keras gives them in a fresh process. Weights
    of the net start from `weights`, those of the logits from `seed`.

    Args:
        input_shape: (height, width, channels).
        classes: How many logits.
        mean: Grey level of each channel; see above.
        std: Its standard deviation.
        seed: Fixes the weights that start at random, and the dropout of every layer.
        name: One of `tfprune.zoo.APPLICATIONS`; the model's name.
        weights: "imagenet" (downloaded once, into Keras' cache), "random", or the path of a file of
            the same net without its top, such as Keras' own `*_no_top.h5`, or what `save_weights`
            writes of it.
        dropout: Share of the features dropped before the logits while training, 0 to 1.
        **options: What Keras offers for this net: `alpha` (width, above 0), `depth_multiplier` (1
            or more) or `minimalistic` (no squeeze-and-excite, 3x3 kernels, ReLU).

    Returns:
        A model from float32 pixels 0 to 255 to logits.

    Raises:
        UsageError: Options, images and weights do not go together.
        TfpruneError: ImageNet weights cannot be fetched.
    """
    positive("classes", classes)
    dropout = checked("dropout", dropout)
    own = {option: checked(option, value) for option, value in options.items()}
    seeds = layer_seeds(seed)
    net_seed, logits_seed, dropout_seed = next(seeds), next(seeds), next(seeds)
    start = _start(name, weights, input_shape)
    with _drawing_from(net_seed):
        inputs, x = prepared(name, input_shape, mean, std)
        net = _keras_net(name, x, input_shape, "imagenet" if start == "imagenet" else None, own)
        net = _named_afresh(net)
    if isinstance(start, Path):
        _load(net, start, name)
    inputs, x = net.inputs[0], net.outputs[0]
    if dropout:
        x = keras.layers.Dropout(dropout, seed=dropout_seed, name="dropout")(x)
    outputs = logits(x, classes, keras.initializers.GlorotUniform(logits_seed))
    return keras.Model(inputs, outputs, name=name)


def prepared(
    name: str,
    input_shape: tuple[int, int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of pixels 0 to 255, and what goes into the first layer of a net.

    Args:
        name: One of `tfprune.zoo.APPLICATIONS`.
        input_shape: (height, width, channels).
        mean: Grey level of each channel, used where the net has no convention for the channels.
        std: Its standard deviation.

    Returns:
        The input tensor and what `preprocess_input` of the net's module makes of it.

    Raises:
        UsageError: The net takes no images of this shape.
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
    inputs, x = image_input(input_shape, *_FIGURES[net.convention])
    # Turning the weights of the first convolution round would save this step, but then files of
    # weights would no longer mean the same here and in Keras.
    return inputs, keras.ops.flip(x, axis=-1) if net.convention == "caffe" else x


def _start(
    name: str, weights: str | os.PathLike[str], input_shape: tuple[int, int, int]
) -> str | Path:
    """`weights`, checked; a file as a path."""
    if weights == "imagenet" and len(input_shape) == 3 and input_shape[-1] != 3:
        raise UsageError(
            f'weights = "imagenet" of {name} take 3 channels, not {input_shape[-1]}: '
            'give colour images, or options weights = "random"'
        )
    if weights in ("imagenet", "random"):
        return str(weights)
    if not isinstance(weights, str | os.PathLike) or not Path(weights).is_file():
        raise UsageError(
            f"weights of {name} are {str(weights)!r}, which is no file: "
            'give "imagenet", "random" or the path of a file'
        )
    return Path(weights)


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Lets Keras draw its seeds from `seed`, and leaves the global state as it was.

    The nets give their initializers and dropouts no seed, and Keras then draws one from Python's
    own generator, when the layer is made.
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
        # Keras reports a download on stdout, and warns of image sizes that it has no weights for
        # and of channel counts: both are allowed here, and documented there.
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
        # Keras raises a bare Exception when an address does not answer.
        fetching = (OSError, ValueError, http.client.HTTPException)
        if weights is None or not (type(error) is Exception or isinstance(error, fetching)):
            raise
        raise TfpruneError(
            f"ImageNet weights of {name} cannot be fetched ({_one_line(error)}): "
            'go online once, or give options weights = "random" or a file'
        ) from error


def _named_afresh(net: keras.Model) -> keras.Model:
    """The net with the layer names of a fresh process, the same in every process.

    Keras counts the layers that have no name of their own, over all models a process makes.
    Variables keep the names of their layers, so renamed layers are made anew.
    """
    numbered: dict[str, list[tuple[int, keras.Operation]]] = {}
    for operation in net.operations:
        kind, number = re.fullmatch(r"(.+?)(?:_(\d+))?", operation.name).groups()  # type: ignore[union-attr]
        if kind.replace("_", "") == type(operation).__name__.lower():
            numbered.setdefault(kind, []).append((int(number or 0), operation))
    fresh = True
    for kind, found in numbered.items():
        ordered = sorted(found, key=lambda each: each[0])
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
    """Lets a Normalization see that its variables were assigned."""
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def _load(net: keras.Model, path: Path, name: str) -> None:
    """Reads a file of weights, as Keras reads ImageNet's."""
    floats = [each for each in net.weights if keras.backend.is_float_dtype(each.dtype)]
    for variable in floats:
        # Of some files Keras reads what it can find and leaves the rest as it was.
        variable.assign(keras.ops.full_like(variable, math.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.load_weights(path)
        missing = [each.path for each in floats if keras.ops.any(keras.ops.isnan(each))]
        if missing:
            raise ValueError(f"no {missing[0]} in it")
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"weights in {path} do not fit {name} without its top ({_one_line(error)}): "
            "give a file of the same net and options"
        ) from error
    for layer in net.layers:
        # EfficientNet's published files hold the deviation where the variance belongs. Keras mends
        # that with one more layer, and only when it fetches the file itself.
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            variance = keras.ops.convert_to_numpy(layer.adapt_variance)
            if variance.shape == (3,) and np.allclose(variance, _IMAGENET_STD, atol=1e-4):
                layer.adapt_variance.assign(variance * _IMAGENET_STD)
                _refresh(layer)


def _one_line(error: BaseException) -> str:
    """What an error says, or its type where it says nothing; Keras may list every layer."""
    text = textwrap.shorten(str(error), 300, placeholder=" ...")
    return text.rstrip(". ") or type(error).__name__
