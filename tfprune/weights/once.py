"""Pruning at once, without training: the cut between two trainings."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

import keras
import numpy as np

from tfprune import graph
from tfprune.errors import UsageError
from tfprune.weights.masks import Select, check_sparsity, global_masks, lowest_die, scores
from tfprune.weights.select import Picks, prunable


def prune_once(
    model: keras.Model,
    share: float,
    *,
    scope: Literal["layer", "global"] = "layer",
    select: Select = "magnitude",
    layers: Mapping[str, float] | None = None,
    include: Picks = None,
    exclude: Picks = None,
    seed: int = 0,
) -> keras.Model:
    """Sets a share of the weights that live to zero.

    One round of iterative magnitude pruning (Han et al. 2015; Frankle & Carbin 2019): what is
    zero already stays zero and does not count, so pruning 20 % five times leaves 0.8^5 = 33 %.

    Args:
        model: a built model.
        share: of the weights that are not zero, how many die, 0 to 1.
        scope: "layer" takes the share from each weight tensor, "global" ranks all of them.
        select: "magnitude", the smallest die; "random", a seeded choice.
        layers: shares of their own for layers, by path or glob such as `"dense*"`; the first that
            matches counts. Only with the scope "layer".
        include: only these layers; names, paths or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
        seed: of the random selection.

    Returns:
        A new model.

    Raises:
        UsageError: a share outside 0 to 1, shares of layers under the scope "global", or a glob
            that matches no layer with a kernel.
    """
    shares = {"": share, **(layers or {})}
    for name, value in shares.items():
        check_sparsity(value, f"the share of {name!r}" if name else "share")
    if layers and scope == "global":
        raise UsageError("layers have shares of their own only under the scope 'layer'")
    pruned = graph.copy(model)
    chosen = prunable(pruned, include, exclude)
    values = [keras.ops.convert_to_numpy(variable) for _, variable in chosen]
    paths = [path for path, _ in chosen]
    for pattern in layers or ():
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise UsageError(f"layers: {pattern!r} matches no layer with a kernel to prune")
    if scope == "global":
        alive = sum(int(np.count_nonzero(value)) for value in values)
        size = sum(value.size for value in values)
        masks = global_masks(values, _sparsity(share, alive, size), None, select, seed)
    else:
        masks = []
        for index, (path, value) in enumerate(zip(paths, values, strict=True)):
            own = next(
                (s for pattern, s in (layers or {}).items() if fnmatchcase(path, pattern)), share
            )
            sparsity = _sparsity(own, int(np.count_nonzero(value)), value.size)
            masks.append(lowest_die(scores(value, select, seed, index), sparsity))
    for (_, variable), value, mask in zip(chosen, values, masks, strict=True):
        variable.assign(np.where(mask, value, 0))
    return pruned


def _sparsity(share: float, alive: int, size: int) -> float:
    """The sparsity at which exactly `share` of what is alive has died as well."""
    return (size - alive + round(share * alive)) / size if size else 0.0


def rewound(model: keras.Model, origin: keras.Model) -> keras.Model:
    """A pruned model with the weights of an earlier one, where they live.

    Weight rewinding (Frankle et al. 2020, https://arxiv.org/abs/1912.05671): what is zero in a
    prunable weight stays zero, all other variables, biases and BatchNorm's statistics included,
    are those of `origin`.

    Args:
        model: a pruned model.
        origin: a model of the same shapes: at initialisation, or early in its training.

    Returns:
        A new model.

    Raises:
        UsageError: the shapes differ.
    """
    twin = graph.copy(model)
    shapes = [[tuple(v.shape) for v in each.variables] for each in (twin, origin)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"{model.name} cannot be rewound to {origin.name}: their weights have other shapes"
        )
    masks = {
        id(variable): keras.ops.convert_to_numpy(variable) != 0 for _, variable in prunable(twin)
    }
    for variable, early in zip(twin.variables, origin.variables, strict=True):
        value = keras.ops.convert_to_numpy(early)
        mask = masks.get(id(variable))
        variable.assign(value if mask is None else np.where(mask, value, 0))
    return twin
