"""Rebuilds a model with fewer channels, by editing its config and slicing its weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.filters.plan import RemovalPlan
from tfprune.graph import is_graph


def rebuild(plan: RemovalPlan) -> keras.Model:
    """The slim model of a plan.

    Args:
        plan: which channels of which model live.

    Returns:
        A new model of the same class with the same layer, input and output names; weights are
        slices of the original's, which stays as it was. Compiled like the original where that
        was compiled, with a fresh optimizer state, since the old one has other shapes.
    """
    groups = plan.groups
    config = groups.model.get_config()
    sizes: dict[int, dict[str, int]] = {}
    for number in groups.trace.numbers.values():
        kept = int(groups.kept(plan.alive, number.ids).sum())
        sizes.setdefault(id(number.layer), {})[number.key] = kept
    _edit(groups.model, config, sizes)
    slim = type(groups.model).from_config(config)
    for old, new in zip(groups.model.weights, slim.weights, strict=True):
        new.assign(_sliced(plan, old))
    if groups.model.compiled:
        slim.compile_from_config(groups.model.get_compile_config())
    return slim


def _edit(model: keras.Model, config: dict[str, Any], sizes: dict[int, dict[str, int]]) -> None:
    layers = {layer.name: layer for layer in model.layers}
    config.pop("build_input_shape", None)
    for entry in config["layers"]:
        # A layer built from its recorded shape would have the old number of channels.
        entry.pop("build_config", None)
        layer = layers.get(entry["config"].get("name"))
        if layer is None:
            continue
        if is_graph(layer):
            _edit(layer, entry["config"], sizes)
        else:
            entry["config"].update(sizes.get(id(layer), {}))


def _sliced(plan: RemovalPlan, variable: keras.Variable) -> np.ndarray:
    value = np.asarray(keras.ops.convert_to_numpy(variable))
    for axis in range(value.ndim):
        entry = plan.groups.trace.slices.get((id(variable), axis))
        if entry is not None:
            value = np.compress(plan.groups.kept(plan.alive, entry.ids), value, axis)
    return value
