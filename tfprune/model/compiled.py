"""What a model is compiled with: its losses and metrics, and whether a file can keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import keras
import numpy as np

_CROSS_ENTROPIES = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
)
_CROSS_ENTROPY = ("sparse_categorical_crossentropy", "categorical_crossentropy")
_ACCURACIES = (keras.metrics.SparseCategoricalAccuracy, keras.metrics.CategoricalAccuracy)
_ACCURACY = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy")
# Keras chooses among several metrics by the loss.
_SHORT = ("accuracy", "acc", "crossentropy", "ce")
_LOSS_ONLY = ("loss", "loss_weights", "metrics", "weighted_metrics")


@dataclass(frozen=True)
class Settings:
    """The part of a model's compile settings that tells what it is trained for.

    Attributes:
        loss: as `compile` takes it; None if the model is not compiled, or without a loss.
        loss_weights: as `compile` takes them.
        metrics: as `compile` takes them.
        weighted_metrics: as `compile` takes them.
    """

    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None

    def loss_of_part(self, outputs: Sequence[str], known: Sequence[str]) -> bool:
        """Whether no output but those that are `known` has a loss."""
        if isinstance(self.loss, Mapping):
            return all(name in known or self.loss.get(name) is None for name in outputs)
        if isinstance(self.loss, list | tuple):
            pairs = zip(outputs, self.loss, strict=False)
            return all(name in known or loss is None for name, loss in pairs)
        return False


def settings_of(model: keras.Model) -> Settings:
    """What a model is compiled with; nothing if it is not compiled.

    Example:
        ```python
        model.compile("adam", "mse", metrics=["mae"])
        settings_of(model).loss  # "mse"
        ```
    """
    if not getattr(model, "compiled", False) or model._compile_config is None:
        return Settings()
    config = model._compile_config.config
    return Settings(**{name: config.get(name) for name in _LOSS_ONLY})


def classifies(model: keras.Model, settings: Settings) -> bool:
    """Whether a model has one output of one number a class, and the cross entropy as its loss.

    Class numbers or one-hot rows: the loss is the same.

    Example:
        ```python
        classifies(model, settings_of(model))
        ```

    A model that is not compiled counts by its output alone.
    """
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        return False
    loss = settings.loss
    if isinstance(loss, Mapping | list | tuple):
        parts = list(loss.values()) if isinstance(loss, Mapping) else list(loss)
        loss = parts[0] if len(parts) == 1 else "several"
    if model.outputs[0].shape[-1] == 1:
        return False
    if type(loss) in _CROSS_ENTROPIES:
        usual = type(loss)(from_logits=loss.get_config().get("from_logits", False), name=loss.name)
        return _same(_told(loss), _told(usual))
    return loss is None or _identifier(loss) in _CROSS_ENTROPY


def is_plain(model: keras.Model) -> bool:
    """Whether a model is not compiled, or as a classifier whose accuracy is compared.

    Example:
        ```python
        is_plain(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))  # True
        ```
    """
    settings = settings_of(model)
    if settings == Settings():
        return True
    measured = [*_flat(settings.metrics), *_flat(settings.weighted_metrics)]
    return classifies(model, settings) and all(
        type(each) in _ACCURACIES
        or (type(each) is keras.metrics.MeanMetricWrapper and _identifier(each._fn) in _ACCURACY)
        or _identifier(each) in _ACCURACY
        for each in measured
    )


def kept_by_file(model: keras.Model) -> tuple[Settings | None, str | None]:
    """The settings that a file can keep, and what there is that it cannot.

    A file keeps them where all are Keras' own and come back from their config as they are. (Keras
    forgets some arguments, such as the delta of `Huber`.)

    Example:
        ```python
        model.compile("adam", "mse")
        kept_by_file(model)[0].loss  # "mse"
        ```

    Returns:
        New settings, and None; or None and the name of what cannot be kept. (None, None) for a
        model that `is_plain`.
    """
    if is_plain(model):
        return None, None
    settings = settings_of(model)
    parts = {name: getattr(settings, name) for name in _LOSS_ONLY}
    for each in _flat(parts):
        if not _is_kept(each):
            return None, _name(each)
    return Settings(**{name: _renewed(part) for name, part in parts.items()}), None


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _flat(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif value is not None:
        yield value


def _identifier(value: Any) -> str | None:
    """The name that Keras knows a loss or a metric by; None for an object with settings."""
    if isinstance(value, str):
        found = _known(value)
        return found.__name__ if isinstance(found, FunctionType) else value
    if isinstance(value, FunctionType) and value.__module__.partition(".")[0] == "keras":
        return value.__name__
    return None


def _known(name: str) -> Any:
    for get in (keras.losses.get, keras.metrics.get):
        try:
            return get(name)
        except ValueError:
            continue
    return None


def _is_kept(value: Any) -> bool:
    if isinstance(value, str):
        return value in _SHORT or _is_own(_known(value))
    if isinstance(value, int | float):
        return True
    if isinstance(value, FunctionType):
        return _is_own(value) and _known(value.__name__) is value
    if not _is_own(value) or not isinstance(value, keras.losses.Loss | keras.metrics.Metric):
        return False
    try:
        twin = type(value).from_config(value.get_config())
    # Whatever Keras raises: it does not come back.
    except Exception:
        return False
    return _same(_told(value), _told(twin))


def _is_own(value: Any) -> bool:
    """Whether it is Keras' own, and so is every function that it holds."""
    home = value.__module__ if isinstance(value, FunctionType) else type(value).__module__
    held = vars(value).values() if hasattr(value, "__dict__") else ()
    return str(home).partition(".")[0] == "keras" and all(
        each.__module__.partition(".")[0] == "keras"
        for each in held
        if isinstance(each, FunctionType) and not isinstance(value, FunctionType)
    )


def _told(value: Any) -> dict[str, Any]:
    """What an object was told, without what it has counted."""
    plain = (str, int, float, bool, type(None), FunctionType, list, tuple, dict, np.ndarray)
    return {
        key: each
        for key, each in vars(value).items()
        if isinstance(each, plain) and key not in ("_variables", "_metrics", "_tracker", "built")
    }


def _same(mine: Any, other: Any) -> bool:
    if isinstance(mine, dict) and isinstance(other, dict):
        return mine.keys() == other.keys() and all(_same(mine[k], other[k]) for k in mine)
    if isinstance(mine, list | tuple) and isinstance(other, list | tuple):
        return len(mine) == len(other) and all(map(_same, mine, other))
    if isinstance(mine, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(mine, other)
    if isinstance(mine, keras.Variable) or hasattr(mine, "get_config"):
        return type(mine) is type(other)
    return bool(mine == other)


def _renewed(value: Any) -> Any:
    """New objects of the same settings, and names of Keras' functions."""
    if isinstance(value, Mapping):
        return {key: _renewed(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_renewed(part) for part in value]
    if isinstance(value, FunctionType):
        # Keras writes a function's name so that it does not find it again.
        return value.__name__
    if isinstance(value, keras.losses.Loss | keras.metrics.Metric):
        return type(value).from_config(value.get_config())
    return value


def _name(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.__name__ if isinstance(value, FunctionType) else type(value).__name__
