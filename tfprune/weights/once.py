"""Pruning at once, without training: the cut between two trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model import cloning, graph
from tfprune.training.schedule import check_sparsity
from tfprune.weights.cut import Cut
from tfprune.weights.masks import Select
from tfprune.weights.select import Picks, kernels, prunable


def prune_once(
    model: keras.Model,
    share: float,
    *,
    scope: Literal["layer", "global"] = "layer",
    select: Select = "magnitude",
    pattern: Any = None,
    layers: Mapping[str, float] | None = None,
    include: Picks = None,
    exclude: Picks = None,
    seed: int = 0,
    min_kept: int = 1,
) -> keras.Model:
    """Sets a share of the weights that live to zero.

    One round of iterative magnitude pruning (Han et al. 2015; Frankle & Carbin 2019): what is
    zero already stays zero and does not count, so pruning 20 % five times leaves 0.8^5 = 33 %.

    Args:
        model: a built model.
        share: of the weights that are not zero, how many die, 0 to 1.
        scope: "layer" takes the share from each weight tensor, "global" ranks all of them.
        select: "magnitude", the smallest die; "random", a seeded choice; or a function from a
            weight's array to scores, of which the lowest die.
        pattern: "2:4" or blocks such as (1, 4), see `PruneWeights`. "2:4" holds throughout once
            half of all weights are zero; a smaller share goes a part of the way.
        layers: shares of their own for layers, in place of `share`, by name, path or glob such
            as `"dense*"`; the first that matches counts. Only with the scope "layer".
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
        seed: of the random selection.
        min_kept: how many weights of each tensor stay at least; a warning names the layers where
            they would not have.

    Returns:
        A new model.

    Raises:
        UsageError: an unknown scope, selection or pattern, a share outside 0 to 1, shares of
            layers under the scope "global", or a glob that matches no layer with a kernel.
    """
    check_sparsity(share, "share")
    cut = Cut(scope, select, seed, pattern, layers, min_kept)
    pruned = cloning.copy(model)
    chosen = kernels(pruned, include, exclude)
    shares = cut.shares(chosen, share)
    values = [keras.ops.convert_to_numpy(kernel.variable) for kernel in chosen]
    sizes = [(int(np.count_nonzero(value)), value.size) for value in values]
    if scope == "global":
        alive, size = (sum(column) for column in zip(*sizes, strict=True)) if sizes else (0, 0)
        sparsities = [_sparsity(share, alive, size)] * len(chosen)
    else:
        sparsities = [_sparsity(own, *each) for own, each in zip(shares, sizes, strict=True)]
    masks, floored = cut.masks(chosen, values, sparsities)
    cut.warn_of_floor("prune_once", [chosen[index].path for index in floored])
    for kernel, value, mask in zip(chosen, values, masks, strict=True):
        kernel.variable.assign(np.where(mask, value, 0))
    return pruned


def _sparsity(share: float, alive: int, size: int) -> float:
    """The sparsity at which exactly `share` of what is alive has died as well."""
    return (size - alive + round(share * alive)) / size if size else 0.0


def redrawn(model: keras.Model, seed: int) -> keras.Model:
    """A model of the same architecture with initial weights of its own.

    The random reinitialisation of Frankle & Carbin 2019 under `rewound`, and of a slim model the
    training from scratch that Liu et al. 2019 (https://arxiv.org/abs/1810.05270) compare with.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        seed: of the new weights, each from the initializer of its layer.

    Returns:
        A new model; what a Normalization layer knows of the data is kept.

    Raises:
        UsageError: the model is one that no config can make again.
    """
    found = cloning.config_of(model)
    for index, initializer in enumerate(_random_initializers(found.config)):
        state = np.random.SeedSequence([seed, index]).generate_state(1)
        initializer["seed"] = int(state[0] >> 1)
    twin = cloning.from_config(model, found)
    layers = zip(graph.named_layers(model).values(), graph.named_layers(twin).values(), strict=True)
    for old, new in layers:
        if isinstance(old, keras.layers.Normalization):
            new.set_weights(old.get_weights())
    graph.finalize_states(twin)
    return twin


def _random_initializers(config: Any) -> Iterator[dict[str, Any]]:
    """The configs of all initializers within a config that draw."""
    if isinstance(config, dict):
        if config.get("module") == "keras.initializers" and "seed" in config["config"]:
            yield config["config"]
        config = config.values()
    elif not isinstance(config, list | tuple):
        return
    for inner in config:
        yield from _random_initializers(inner)


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
    twin = cloning.copy(model)
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
