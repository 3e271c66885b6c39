"""Whether calibration data look like the data that a model was trained on.

An int8 file calibrated on other data than the model was made for agrees with the model on these
very data, and is wrong on all others. Nothing in a model says for sure what it was trained on, but
much of it tells: the statistics that its normalising layers hold, and how sure its outputs are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfprune.artifacts.comparing import sigmoid_outputs
from tfprune.artifacts.examples import LEAST_EXAMPLES, compared
from tfprune.data.splits import spread
from tfprune.formats import Feeds
from tfprune.formats.keras_file import KerasRuntime
from tfprune.formats.signature import flattened
from tfprune.measure.agreement import MOST_COMMON, agreement
from tfprune.model.graph import named_layers

# What follows is far outside of what data of the same kind give by chance, and of what a short
# training leaves in moving averages; scaling once too often is 16 or 255 times off.
_OTHER_SCALE = 8.0
_OTHER_CENTRE = 8.0
_WIDER = 4.0
_CLIPPED = 0.1
# A layer that divides by about so much takes pixels.
_PIXELS = (100.0, 300.0)
# Logits this far apart are the probability 1 to 34 digits: trained nets stay far below.
_SATURATED_NATS = 80.0
# For fewer classes an unsure model, or one that knows few classes, is nothing remarkable.
_CLASSES = 5
_EXAMPLES_A_CLASS = 10
_UNSURE = 0.3
_HARDLY = 0.05
_SAME = 1e-6
_FORWARD = 64
_SCALE = "scale them as in training"
_CLASS = "give examples of all classes, scaled as in training"


def doubts(model: keras.Model, data: Feeds, given: Feeds | None = None) -> list[str]:
    """What is wrong with representative data, as far as it shows.

    It shows where examples are few, constant or all alike; where they cover another range than
    `given` ones; where a normalising layer (Normalization, Rescaling to pixels, the first
    BatchNormalization) holds the statistics of other data; and where a classifier with
    classes enough is sure beyond reason, not sure at all, or gives few of its classes. A
    regressor without a normalising layer tells nothing: there only `given` examples help.

    Args:
        model: A finished model, which is run.
        data: Examples by input name.
        given: Others that the model is compared on, or None.

    Returns:
        One line for each finding, with what to do.
    """
    # What else shows follows from these.
    plain = [*_few(data), *_constant(data)]
    if plain:
        return plain
    statistics = list(_statistics(model, data))
    return [
        *(_other_range(data, given) if given else ()),
        *(doubt for doubt in statistics if doubt),
        *_odd_outputs(model, data, given, scaled=bool(statistics)),
    ]


def _few(data: Feeds) -> Iterator[str]:
    count = min(len(images) for images in data.values())
    if count < LEAST_EXAMPLES:
        yield (
            f"representative_data has {count} example{'s' * (count > 1)}, which are too few to set "
            "ranges and to hold some back for the comparison: give some hundred training examples"
        )


def _constant(data: Feeds) -> Iterator[str]:
    for name, images in data.items():
        if len(images) > 1 and (images == images[:1]).all():
            said = f"all {images.flat[0]:g}" if np.ptp(images) == 0 else "the same example"
            yield (
                f"representative_data for input {name} are {said}: activations get no range; "
                "give training examples that differ"
            )


def _other_range(data: Feeds, given: Feeds) -> Iterator[str]:
    for name, images in data.items():
        low, high, most, least = images.min(), images.max(), given[name].max(), given[name].min()
        # A few outliers are none of another range.
        usual = np.percentile(given[name], (1, 99))
        extent = float(high) - float(low)
        beyond = max(low - usual[0], usual[1] - high) > _CLIPPED * extent
        central = float(np.ptp(np.percentile(images, (1, 99))))
        if beyond or central > _WIDER * (float(most) - float(least)):
            yield (
                f"representative_data for input {name} cover {low:g} to {high:g} and "
                f"comparison_data {least:g} to {most:g}: scale both as in training"
            )


def _statistics(model: keras.Model, data: Feeds) -> Iterator[str | None]:
    """A doubt for each layer that holds statistics of its training data; None where they fit."""
    seen: list[tuple[keras.Layer, np.ndarray]] = []
    with _recorded(model, lambda layer, x: seen.append((layer, x))):
        flat = flattened(model)
        size = model.inputs[0].shape[0]
        few = {name: images[spread(len(images), size or _FORWARD)] for name, images in data.items()}
        if all(len(images) >= (size or 1) for images in few.values()):
            flat(
                [
                    keras.ops.cast(images[:size], x.dtype)
                    for images, x in zip(few.values(), flat.inputs, strict=True)
                ],
                training=False,
            )
    of_batch_norm = 0
    for layer, x in seen:
        if isinstance(layer, keras.layers.Rescaling):
            if not _PIXELS[0] <= 1 / max(_scale(layer), 1e-9) <= _PIXELS[1]:
                continue
            yield _as_pixels(layer, x)
            continue
        if isinstance(layer, keras.layers.BatchNormalization):
            of_batch_norm += 1
            # Those behind the first one see what it made equal.
            if of_batch_norm > 1 or not _has_statistics(layer):
                continue
        yield _as_normalized(layer, x)


def _as_pixels(layer: keras.layers.Rescaling, x: np.ndarray) -> str | None:
    scale = _scale(layer)
    extent, largest = float(np.ptp(x)), float(np.abs(x).max())
    if 0 < extent < 0.1 / scale or largest > _WIDER / scale:
        return (
            f"layer '{layer.name}' rescales pixels 0..255 and representative_data bring it values "
            f"from {x.min():.3g} to {x.max():.3g}: give them as the model was trained, unscaled"
        )
    return None


def _scale(layer: keras.layers.Rescaling) -> float:
    return float(np.abs(np.asarray(layer.scale, np.float64)).max())


def _as_normalized(layer: Any, x: np.ndarray) -> str | None:
    """Whether a layer normalises what it gets: mean 0 and deviation 1, by its own statistics."""
    if isinstance(layer, keras.layers.BatchNormalization):
        mean, variance = layer.moving_mean, layer.moving_variance
        axis, epsilon = layer.axis, layer.epsilon
        values = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        mean, variance = (keras.ops.convert_to_numpy(each) for each in (mean, variance))
        deviation = np.sqrt(variance + epsilon)
        live = values.std(axis=0) > 0
        if not live.any():
            return None
        values, mean, deviation = values[:, live], mean[live], deviation[live]
        spreads = values.std(axis=0) / deviation
        shifts = np.abs(values.mean(axis=0) - mean) / deviation
    else:
        values = keras.ops.convert_to_numpy(layer(x)).reshape(-1)
        spreads, shifts = np.array([values.std()]), np.abs([values.mean()])
    spread_of, shift = float(np.median(spreads)), float(np.median(shifts))
    if not 1 / _OTHER_SCALE <= spread_of <= _OTHER_SCALE or shift > _OTHER_CENTRE:
        return (
            f"layer '{layer.name}' was trained on other data than representative_data: what it "
            f"gets deviates {spread_of:.3g} times as much and lies {shift:.3g} deviations off: "
            "scale them as in training"
        )
    return None


def _has_statistics(layer: keras.layers.BatchNormalization) -> bool:
    mean, variance = (np.asarray(each) for each in (layer.moving_mean, layer.moving_variance))
    return bool((mean != 0).any() or (variance != 1).any())


@contextlib.contextmanager
def _recorded(
    model: keras.Model, record: Callable[[keras.Layer, np.ndarray], object]
) -> Iterator[None]:
    """Tells what the normalising layers of a model get, wherever they are nested."""
    kinds = (
        keras.layers.BatchNormalization,
        keras.layers.Normalization,
        keras.layers.Rescaling,
    )
    layers = [layer for layer in named_layers(model).values() if isinstance(layer, kinds)]

    def recording(layer: keras.Layer) -> Callable[..., Any]:
        call = layer.call

        def record_and_call(x: Any, *arguments: Any, **options: Any) -> Any:
            record(layer, keras.ops.convert_to_numpy(x))
            return call(x, *arguments, **options)

        return record_and_call

    for layer in layers:
        layer.call = recording(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _odd_outputs(
    model: keras.Model, data: Feeds, given: Feeds | None, scaled: bool
) -> Iterator[str]:
    """What outputs say: of the scale only where no layer has said more, `scaled`."""
    runtime = KerasRuntime(model)
    outputs = runtime.run(compared(model, data))
    others = runtime.run(compared(model, given)) if given else {}
    sigmoids = sigmoid_outputs(model)
    for name, y in outputs.items():
        what = "the model" if len(outputs) == 1 else f"output {name} of the model"
        if np.ptp(y, axis=0).max() <= _SAME * np.abs(y).max():
            yield f"{what} gives the same for all of representative_data: {_SCALE}"
        # An untrained net has not learned any classes.
        elif y.ndim == 2 and _is_trained(model):
            if name in sigmoids:
                yield from () if scaled else _odd_sides(what, y)
            elif (found := agreement(y, y)).commonest is not None:
                doubt = None if scaled else _odd_scale(what, y, found.bounded)
                doubt = doubt or _few_classes(what, y, others.get(name))
                yield from [doubt] if doubt else ()


def _odd_sides(what: str, y: np.ndarray) -> Iterator[str]:
    # Near 1 float32 shows little: 0.99999999 is 1.
    below = y[y < 1 - y]
    if below.size and np.median(below) < np.exp(-_SATURATED_NATS):
        yield f"{what} gives exact zeros for most of representative_data: {_SCALE}"
    elif np.ptp(y) < _HARDLY:
        yield (
            f"{what} gives {y.min():.3f} to {y.max():.3f} for all of representative_data: {_SCALE}"
        )


def _odd_scale(what: str, y: np.ndarray, probabilities: bool) -> str | None:
    classes = y.shape[1]
    logits = np.log(np.maximum(y, np.finfo(np.float32).tiny)) if probabilities else y
    first, second = np.sort(logits, axis=1)[:, [-1, -2]].T
    apart = float(np.median(first - second))
    if apart > _SATURATED_NATS:
        return (
            f"{what} is sure of its class beyond reason for most of representative_data "
            f"(largest outputs differ by {apart:.0f}): {_SCALE}"
        )
    top = float(np.median(1 / np.exp(logits - first[:, None]).sum(axis=1)))
    if classes >= _CLASSES and top < min(_UNSURE, 3 / classes):
        return (
            f"{what} is not sure of any class for most of representative_data (median probability "
            f"{top:.2f} among {classes} classes): {_SCALE}, or train longer"
        )
    return None


def _few_classes(what: str, y: np.ndarray, others: np.ndarray | None) -> str | None:
    """Whether classes are missing, though not where the model gives no more on other examples."""
    count, classes = y.shape
    shares = _shares(y)
    known, most = classes, 0.0
    if others is not None:
        known, most = np.count_nonzero(_shares(others)), float(_shares(others).max())
    if shares.max() > MOST_COMMON >= most:
        return f"{what} gives one class for {shares.max():.0%} of representative_data: {_CLASS}"
    seen = np.count_nonzero(shares)
    if classes >= _CLASSES and count >= _EXAMPLES_A_CLASS * classes and seen < known / 2:
        return (
            f"{what} gives only {seen} of its {classes} classes for representative_data: {_CLASS}"
        )
    return None


def _shares(y: np.ndarray) -> np.ndarray:
    return np.bincount(y.argmax(axis=1), minlength=y.shape[1]) / len(y)


def _is_trained(model: keras.Model) -> bool:
    """Whether any bias has left its first value: Keras begins with zeros."""
    return any(
        bool(np.any(weight))
        for weight in model.trainable_weights
        if weight.name in ("bias", "beta")
    )
