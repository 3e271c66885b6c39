"""Rebuilds a model with fewer channels, and brings its statistics up to date."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tfprune.data.adapting import Data, examples
from tfprune.data.splits import leaves
from tfprune.filters.channels import ConfigNumber
from tfprune.filters.plan import RemovalPlan
from tfprune.model.cloning import (
    compile_like,
    config_of,
    copy,
    copy_weights,
    from_config,
    layer_entries,
)
from tfprune.model.graph import functional, graph_at_each_step, is_graph, named_layers

# Of more examples, statistics hardly change.
_RECALIBRATED_ON = 2048


def rebuild(plan: RemovalPlan) -> keras.Model:
    """The slim model of a plan.

    Example:
        ```python
        slim = rebuild(tfprune.plan(model, macs=0.5))
        ```

    Args:
        plan: which channels of which model live.

    Returns:
        A new model of the same class with the same layer, input and output names (a plain
        `keras.Model` where the class has an `__init__` of its own); weights are slices of the
        original's, which stays as it was. Compiled like the original where that
        was compiled, with a fresh optimizer state, since the old one has other shapes.

    Raises:
        UsageError: the model is one that no config can make again.
    """
    model = plan.groups.model
    model_config = config_of(model)
    numbers: dict[int, list[ConfigNumber]] = {}
    for number in plan.groups.trace.numbers.values():
        numbers.setdefault(id(number.layer), []).append(number)
    _edit(plan, model, model_config.config, numbers)
    slim = from_config(model, model_config)
    copy_weights(model, slim, lambda weight: _sliced(plan, weight))
    compile_like(model, slim)
    return slim


def _edit(
    plan: RemovalPlan,
    model: keras.Model,
    config: dict[str, Any],
    numbers: dict[int, list[ConfigNumber]],
) -> None:
    config.pop("build_input_shape", None)
    for entry in config["layers"]:
        _unbuild(entry)
    for entry, layer in layer_entries(model, config):
        if is_graph(layer):
            _edit(plan, layer, entry["config"], numbers)
        elif repeated := graph_at_each_step(layer):
            _edit(plan, repeated, entry["config"]["layer"]["config"], numbers)
        for number in numbers.get(id(layer), []):
            inner: Any = entry if number.path[0] == "inbound_nodes" else entry["config"]
            for key in number.path[:-1]:
                inner = inner[key]
            kept = plan.groups.kept(plan.alive, number.ids)
            inner[number.path[-1]] = number.edited(inner[number.path[-1]], kept)


def _unbuild(entry: dict[str, Any]) -> None:
    # A layer built from its recorded shape would have the old number of channels.
    entry.pop("build_config", None)
    for key, inner in entry["config"].items():
        if not (isinstance(inner, dict) and isinstance(inner.get("config"), dict)):
            continue
        if key.endswith("_initializer") and np.ndim(_value(inner)):
            # An array of the old shape; its numbers are in the weights by now.
            entry["config"][key] = keras.initializers.serialize(keras.initializers.Zeros())
        else:
            _unbuild(inner)


def _value(initializer: dict[str, Any]) -> Any:
    """The numbers that a serialised initializer gives to all weights alike, if it does."""
    value = initializer["config"].get("value")
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value


def _sliced(plan: RemovalPlan, variable: keras.Variable) -> np.ndarray:
    value = np.asarray(keras.ops.convert_to_numpy(variable))
    for axis in range(value.ndim):
        entry = plan.groups.trace.slices.get((id(variable), axis))
        if entry is not None:
            value = np.compress(plan.groups.kept(plan.alive, entry.ids), value, axis)
    return value


# -- statistics ---------------------------------------------------------------------------------


def recalibrate(model: keras.Model, data: Data, batch_size: int = 256) -> keras.Model:
    """A copy whose BatchNorm statistics are those of some examples.

    Example:
        ```python
        slim = recalibrate(tfprune.slim(model, macs=0.5), images[:5000])
        ```

    After a removal the moving statistics still describe the activations of the larger model.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        data: training examples as the training saw them, augmented if it did (see
            `tfprune.data.seen`), in any form that `tfprune.data.examples` takes; targets are not
            looked at. Of data that are not arrays, the first 2,048 are read.
        batch_size: examples a forward pass; statistics are averaged over the batches.

    Returns:
        The model with every other weight the same; compiled like the original where it was.

    Raises:
        UsageError: the data do not fit the model, or the model has no graph.
    """
    structure = functional(model).input
    inputs = examples(data, _RECALIBRATED_ON, model=model, whole_arrays=True).inputs
    twin = copy(model)
    norms = [
        layer
        for layer in named_layers(twin).values()
        if isinstance(layer, layers.BatchNormalization) and layer.trainable
    ]
    momenta = [layer.momentum for layer in norms]
    full = max(1, len(leaves(inputs)[0]) // batch_size)
    for index in range(full):
        for layer in norms:
            # i/(i+1) turns the moving average into the plain mean over the batches seen so far.
            layer.momentum = index / (index + 1)
        rows = slice(index * batch_size, (index + 1) * batch_size)
        batch = [
            np.asarray(inputs[name][rows], keras.backend.standardize_dtype(end.dtype))
            for name, end in zip(inputs, model.inputs, strict=True)
        ]
        twin(keras.tree.pack_sequence_as(structure, batch), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    compile_like(model, twin)
    return twin
