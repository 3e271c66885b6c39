"""What files are written from: a copy of a model that carries nothing of its training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.formats.runtime import Feeds
from tfprune.functions import importable
from tfprune.model.cloning import config_of, copy, copy_weights, from_config
from tfprune.model.compiled import Settings
from tfprune.quantize import FakeQuantize, QuantizedLayer, QuantizedPReLU, QuantizedScale
from tfprune.vocabulary import DEFAULT_BATCH, Batch

Ends = Literal["int8", "float"]

_TRAINING_ONLY = ("_regularizer", "_constraint")
# A model trains on with these, and the float model without them is made before this one.
_ROUNDING = (FakeQuantize, QuantizedLayer, QuantizedPReLU, QuantizedScale)


@dataclass(frozen=True)
class Source:
    """What a format is written from.

    Attributes:
        model: A finished model.
        name: Stem of the files' names.
        scratch: A directory that is removed after the export.
        representative_data: Training examples, shape `(n, ...)`, those of several inputs by their
            names in the exported files, or None.
        io: Whether integer formats take and give integers, or float32.
        settings: The losses and metrics that the `.keras` file keeps; None for none.
        batch: Examples that TFLite files take at once; see `fixed_batch`.
        keep: Paths of layers to the precision that they have in int8 files.
        recipe: What format `tflite-recipe` is quantized by: entries of ai-edge-quantizer.
        aware: The quantization-aware model that `model` was finished from, whose ranges int8
            formats take; None where representative data give them.
    """

    model: keras.Model
    name: str
    scratch: Path
    representative_data: np.ndarray | Feeds | None
    io: Ends = "int8"
    settings: Settings | None = None
    batch: Batch = DEFAULT_BATCH
    aware: keras.Model | None = None
    keep: Mapping[str, str] = field(default_factory=dict)
    recipe: Sequence[dict[str, Any]] | None = None

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that TFLite files take: the model's own, else `batch`.

        None for any.
        """
        own = own_batch(self.model)
        return own or (None if self.batch == "dynamic" else self.batch)

    @functools.cached_property
    def saved_model(self) -> Path:
        """A SavedModel of the model, exported once for all formats that start from it."""
        from tfprune.formats.savedmodel import write_saved_model

        directory = self.scratch / "saved_model"
        write_saved_model(self.model, directory)
        return directory

    @functools.cached_property
    def keras_file(self) -> Path:
        """The model's `.keras` export, which also names the model by its hash."""
        from tfprune.formats.keras_file import write_keras

        path = self.scratch / "model.keras"
        write_keras(_compiled(self.model, self.settings), path)
        return path


def own_batch(model: keras.Model) -> int | None:
    """The batch size that a model's own inputs fix; None where it takes any.

    Example:
        ```python
        own_batch(keras.Sequential([keras.Input(batch_shape=(4, 8)), keras.layers.Dense(1)]))  # 4
        ```

    Args:
        model: A built Sequential or Functional model.

    Raises:
        UsageError: Its inputs have different ones.
    """
    found = {x.shape[0] for x in model.inputs} - {None}
    if len(found) > 1:
        raise UsageError(
            f"the inputs of model '{model.name}' have the batches "
            f"{' and '.join(map(str, sorted(found)))}: give all of them the same one for TFLite"
        )
    return next(iter(found), None)


def _compiled(model: keras.Model, settings: Settings | None) -> keras.Model:
    """A copy with losses and metrics; the model itself where there are none."""
    if settings is None:
        return model
    twin = copy(model)
    # Keras loads no losses without an optimizer. This one has no slots, and a name that does not
    # depend on what was built before.
    optimizer = keras.optimizers.SGD(name="sgd")
    twin.compile(optimizer, **vars(settings), jit_compile=False)
    return twin


def finished(model: keras.Model) -> keras.Model:
    """Rebuilds a model without optimizer, compile settings, and tfprune's objects.

    Regularizers and constraints of tfprune do nothing at inference; without them the file opens
    where tfprune is not installed. Those of Keras and of the user stay. Layers that trained in
    mixed precision compute in float32, as their weights are stored: TFLite's builtin operators
    know no float16. A quantization-aware model keeps its layers: `tfprune.quantize.finished` makes
    the float model.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        A new, uncompiled model with the same names and weights.

    Raises:
        UsageError: The model is subclassed or was never built.
        TfpruneError: It cannot be rebuilt from its config, or has a layer of tfprune.
    """
    if not getattr(model, "inputs", None):
        raise UsageError(
            f"model '{getattr(model, 'name', model)}' cannot be exported: "
            "give a Sequential or Functional model that was built with its input shape"
        )
    found = config_of(model)
    try:
        copy = from_config(model, replace(found, config=_without_ours(found.config, found.objects)))
        copy_weights(model, copy)
    except UsageError:
        raise
    # from_config raises whatever a layer's constructor raises.
    except Exception as error:
        raise TfpruneError(
            f"model '{model.name}' cannot be rebuilt from its config ({one_line(error)}): "
            "register its custom layers with keras.saving.register_keras_serializable"
        ) from error
    return copy


def is_mixed_precision(layer: keras.Layer) -> bool:
    """Whether a model, or any layer in it, computes in another dtype than its weights have."""
    children = getattr(layer, "layers", None)
    if children:
        return any(is_mixed_precision(child) for child in children)
    return layer.compute_dtype != layer.variable_dtype


def custom_modules(model: keras.Model) -> list[str]:
    """Modules that register what a model's config names: a `.keras` file needs them imported.

    Args:
        model: A Sequential or Functional model.

    Returns:
        Their names, or paths of files, as `import_layers` takes them; `"__main__"`
        among them where a script or a notebook defines a layer, which no other Python can import.
    """
    registered = (
        value
        for value in config_of(model).objects.values()
        if keras.saving.get_registered_object(keras.saving.get_registered_name(value)) is value
    )
    return sorted({importable(value.__module__) for value in registered})


def _without_ours(config: Any, objects: Mapping[str, Any]) -> Any:
    """A config without tfprune's regularizers and constraints; `objects` are what it names."""
    if isinstance(config, dict):
        if _is_mixed(config):
            return {**config, "config": {"name": "float32"}}
        if _is_ours(config, objects) and objects[config["registered_name"]] not in _ROUNDING:
            raise TfpruneError(
                f"the model carries tfprune's {config.get('class_name')}: finish pruning before "
                "export"
            )
        return {
            key: None
            if key.endswith(_TRAINING_ONLY) and _is_ours(value, objects)
            else _without_ours(value, objects)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_without_ours(value, objects) for value in config)
    return config


def _is_mixed(config: dict[str, Any]) -> bool:
    return config.get("class_name") == "DTypePolicy" and str(
        config.get("config", {}).get("name")
    ).startswith("mixed_")


def _is_ours(value: Any, objects: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return False
    known = objects.get(str(value.get("registered_name")))
    registered = keras.saving.get_registered_name(known) if isinstance(known, type) else ""
    homes = (str(getattr(known, "__module__", "")), str(registered))
    return any(home.split(">")[0].split(".")[0] == "tfprune" for home in homes)
