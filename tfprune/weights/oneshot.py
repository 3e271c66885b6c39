"""Weights changed at once, without training: pruned between two trainings, or rounded."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model import cloning
from tfprune.training.schedule import check_sparsity
from tfprune.vocabulary import Policy, WeightScope
from tfprune.weights.masks import Select, masked
from tfprune.weights.patterns import Axes
from tfprune.weights.rule import MaskRule
from tfprune.weights.selection import Picks, kernels
from tfprune.weights.xnnpack import kernels_of

MOST_BITS = 8


def prune_once(
    model: keras.Model,
    prune_rate: float,
    *,
    scope: WeightScope = "layer",
    select: Select = "magnitude",
    pattern: str | tuple[int, int] | None = None,
    layers: Mapping[str, float] | None = None,
    include: Picks = None,
    exclude: Picks = None,
    policy: Policy | None = None,
    seed: int = 0,
    min_kept: int = 1,
) -> keras.Model:
    """Sets a share of the weights that live to zero.

    Example:
        ```python
        pruned = prune_once(model, 0.2)
        ```

    One round of iterative magnitude pruning (Han et al. 2015; Frankle & Carbin 2019): what is
    zero already stays zero and does not count, so pruning 20 % five times leaves 0.8^5 = 33 %.

    Args:
        model: a built model.
        prune_rate: of the weights that are not zero, the share that dies, 0 to 1.
        scope: "layer" prunes each weight tensor, "global" ranks all of them, "erk" prunes
            each so that all zeros together are spread as `weights.rule.erk_sparsities` tells.
        select: "magnitude", the smallest die; "random", a seeded choice; or a function from a
            weight's array to scores, of which the lowest die.
        pattern: "2:4" or blocks such as (1, 4), see `PruneWeights`. "2:4" holds throughout once
            half of all weights are zero; a smaller rate goes a part of the way.
        layers: rates of their own for layers, in place of `prune_rate`, by name, path or glob
            such as `"dense*"`; the first that matches counts. Only with the scope "layer".
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
        policy: "xnnpack" prunes only what XNNPACK runs sparse, see `PruneWeights`.
        seed: of the random selection.
        min_kept: how many weights of each tensor stay at least; a warning names the layers where
            they would not have.

    Returns:
        A new model.

    Raises:
        UsageError: an unknown scope, selection or pattern, a rate outside 0 to 1, rates of
            layers under another scope than "layer", or a glob that matches no layer with a kernel.
    """
    check_sparsity(prune_rate, "prune_rate")
    rule = MaskRule(scope, select, seed, pattern, layers, min_kept)
    pruned = cloning.copy(model)
    chosen = kernels_of(pruned, include, exclude, policy)
    values = [keras.ops.convert_to_numpy(kernel.variable) for kernel in chosen]
    sizes = [(int(np.count_nonzero(value)), value.size) for value in values]
    if scope in ("global", "erk"):
        alive, size = (sum(column) for column in zip(*sizes, strict=True)) if sizes else (0, 0)
        sparsities = rule.per_kernel(chosen, _sparsity(prune_rate, alive, size))
    else:
        rates = rule.per_kernel(chosen, prune_rate)
        sparsities = [_sparsity(own, *counts) for own, counts in zip(rates, sizes, strict=True)]
    masks, floored = rule.masks(chosen, values, sparsities)
    rule.warn_of_floor("prune_once", [chosen[index].path for index in floored])
    for kernel, value, mask in zip(chosen, values, masks, strict=True):
        kernel.variable.assign(masked(value, mask))
    return pruned


def _sparsity(prune_rate: float, alive: int, size: int) -> float:
    """The sparsity at which exactly `prune_rate` of what is alive has died as well."""
    return (size - alive + round(prune_rate * alive)) / size if size else 0.0


def round_weights(
    model: keras.Model, bits: int, *, include: Picks = None, exclude: Picks = None
) -> keras.Model:
    """Rounds each weight to one of `2^bits - 1` evenly spaced values of its output channel.

    The values are symmetric about zero up to the channel's largest magnitude, as TFLite's int8
    weights are (Jacob et al. 2018, arXiv:1712.05877), so an int8 export keeps them apart as few
    integers. Even steps followed by an entropy code are close to the best that any choice of
    values can do for the same error (Gish & Pierce 1968), clusters found by k-means included. The
    tensors keep their shapes and dtypes: what shrinks is the file once it is compressed.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        bits: of one weight, 2 to 8.
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.

    Returns:
        A new model. What is zero stays zero, and what is less than half a step becomes zero.

    Raises:
        UsageError: bits are out of range, or a glob matches no layer with a kernel.
    """
    if not 2 <= bits <= MOST_BITS:
        raise UsageError(f"bits={bits} is out of range: give 2 to {MOST_BITS}")
    twin = cloning.copy(model)
    for kernel in kernels(twin, include, exclude):
        value = keras.ops.convert_to_numpy(kernel.variable)
        kernel.variable.assign(_rounded(value, kernel.axes, 2 ** (bits - 1) - 1))
    return twin


def _rounded(value: np.ndarray, axes: Axes, levels: int) -> np.ndarray:
    # Of an embedding nothing is left to scale by.
    across = tuple(axis for axis in range(value.ndim) if axis not in axes.channels) or None
    largest = np.abs(value).max(axis=across, keepdims=True)
    # What is zero throughout stays so.
    step = np.where(largest > 0, largest, 1) / levels
    return np.rint(value / step) * step
