"""Rebuilds a model with fewer channels, by editing its config and slicing its weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.filters.channels import Number
from tfprune.filters.plan import RemovalPlan
from tfprune.graph import compile_like, from_config, functional, is_graph


def rebuild(plan: RemovalPlan) -> keras.Model:
    """The slim model of a plan.

    Args:
        plan: which channels of which model live.

    Returns:
        A new model of the same class with the same layer, input and output names; weights are
        slices of the original's, which stays as it was. Compiled like the original where that
        was compiled, with a fresh optimizer state, since the old one has other shapes.

    Raises:
        UsageError: the model is one that no config can make again.
    """
    groups = plan.groups
    config = groups.model.get_config()
    if "layers" in config:
        numbers: dict[int, list[Number]] = {}
        for number in groups.trace.numbers.values():
            numbers.setdefault(id(number.layer), []).append(number)
        _edit(plan, groups.model, config, numbers)
    slim = from_config(groups.model, config)
    for old, new in zip(groups.model.weights, slim.weights, strict=True):
        new.assign(_sliced(plan, old))
    compile_like(groups.model, slim)
    return slim


def _edit(
    plan: RemovalPlan, model: keras.Model, config: dict[str, Any], numbers: dict[int, list[Number]]
) -> None:
    # A Sequential model lists its InputLayer in its config, but not in its layers.
    layers = {layer.name: layer for layer in functional(model).layers}
    config.pop("build_input_shape", None)
    for entry in config["layers"]:
        # A layer built from its recorded shape would have the old number of channels.
        entry.pop("build_config", None)
        layer = layers.get(entry["config"].get("name"))
        if layer is None:
            continue
        if is_graph(layer):
            _edit(plan, layer, entry["config"], numbers)
        for number in numbers.get(id(layer), []):
            kept = int(plan.groups.kept(plan.alive, number.ids).sum())
            if number.axis is None:
                entry["config"][number.key] = kept
            else:
                shape = list(entry["config"][number.key])
                shape[number.axis] = kept
                entry["config"][number.key] = tuple(shape)


def _sliced(plan: RemovalPlan, variable: keras.Variable) -> np.ndarray:
    value = np.asarray(keras.ops.convert_to_numpy(variable))
    for axis in range(value.ndim):
        entry = plan.groups.trace.slices.get((id(variable), axis))
        if entry is not None:
            value = np.compress(plan.groups.kept(plan.alive, entry.ids), value, axis)
    return value
