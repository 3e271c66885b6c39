"""Folds constants: what a channel says to everyone alike goes into the biases of who reads it.

A filter without a live weight still emits its bias, or the beta after it, through the activation.
Once its readers hold that number themselves, the filter is dead and goes for free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.filters.channels import float_values
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.readers import Reader, readers
from tfprune.model.cloning import compile_like, copy
from tfprune.model.graph import named_layers


@dataclass(frozen=True)
class Fold:
    """The constants that one layer no longer reads.

    Attributes:
        layer: path of the layer that read them.
        into: path of the layer that holds them now: itself, in its bias, or the BatchNorm after
            it, in its moving mean.
        channels: the indices of its input channels that it no longer reads.
        error: a bound on how far any number of its output is off, before its activation and given
            the same input; 0 where folding is exact. Only the borders of a padded convolution are
            off.
    """

    layer: str
    into: str
    channels: tuple[int, ...]
    error: float


@dataclass(frozen=True)
class FoldReport:
    """What became of the constants of a model.

    Attributes:
        folds: one a layer that lost constants, in the order of the model.
        refused: path of a layer to the reason why constants that it reads stay.
    """

    folds: tuple[Fold, ...]
    refused: Mapping[str, str]


def constant_units(groups: ChannelGroups) -> np.ndarray:
    """Bool (groups.unit_count,): the units that could go but for a constant that they emit.

    Wherever a weight that is not zero reads such a unit, its value is a known number, the same at
    every position of every example, and somewhere it is not zero. Units that are frozen, or whose
    removal is inexact, are left out: they are never dead.
    """
    return _constant(groups, readers(groups))


def fold_constants(model: keras.Model, *, tolerance: float = 0.0) -> tuple[keras.Model, FoldReport]:
    """Moves the constants that channels emit into the biases of the layers that read them.

    The readers' weights for these channels become zero, so that `slim(dead=True)` then removes
    the channels and changes nothing. What a layer makes of constants alone is constant in turn and
    is folded as well. A layer without a bias whose output a BatchNorm alone reads has constants
    taken out of the moving mean there, as training on would do; any other layer without a bias
    refuses.

    Folding is exact in dense layers, in 1x1 convolutions and wherever no padding is read. At the
    borders of a padded convolution part of the kernel meets zeros instead of the constant, and the
    output is off by what that part would have brought.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        tolerance: the most that any layer's output may be off at the borders, before its activation
            and in its own unit; 0 folds only what is exact, `math.inf` everything.

    Returns:
        A model of the same layers and shapes, compiled like the original where that was, which
        answers at inference as the original does but for the errors in the report; and the report.

    Raises:
        UsageError: a negative tolerance, or a model without a graph.

    Source:
        Ye et al. 2018, Rethinking the Smaller-Norm-Less-Informative Assumption in Channel Pruning
        of Convolution Layers, which moves constant channels into the next bias or moving mean, and
        neglects the borders.
    """
    if not tolerance >= 0:
        raise UsageError(f"tolerance={tolerance:g} is not an error to allow: give 0 or more")
    twin = copy(model)
    paths = named_layers(twin)
    folds: dict[str, Fold] = {}
    while True:
        groups = ChannelGroups(twin)
        found = readers(groups)
        units, refused = _chosen(groups, found, folds, tolerance)
        if not units.any():
            break
        for reader in found:
            chosen = reader.heard & units[reader.units]
            if chosen.any():
                folds[reader.path] = _fold(reader, chosen, paths, folds.get(reader.path))
    compile_like(model, twin)
    return twin, FoldReport(tuple(folds[path] for path in paths if path in folds), refused)


def _constant(groups: ChannelGroups, found: Sequence[Reader]) -> np.ndarray:
    heard, varying = np.zeros((2, groups.unit_count), bool)
    for reader in found:
        heard[reader.units[reader.heard]] = True
        varying[reader.units[reader.heard & np.isnan(reader.constant)]] = True
    for remark in groups.trace.inexactness:
        varying[groups.unit[remark.ids]] = True
    return heard & ~varying & ~groups.fixed


def _chosen(
    groups: ChannelGroups, found: Sequence[Reader], folds: Mapping[str, Fold], tolerance: float
) -> tuple[np.ndarray, dict[str, str]]:
    """Which units can be folded at all their readers, and which readers refuse others.

    Args:
        groups: the channel groups of the model as it is now.
        found: its readers.
        folds: what was folded so far, by the reader's path.
        tolerance: the most that any reader may be off.

    Returns:
        Bool (unit_count,), and path to reason.
    """
    constant = _constant(groups, found)
    candidates = constant.copy()
    refused: dict[str, str] = {}
    for reader in found:
        units = reader.units[reader.heard]
        if reader.into is None and constant[units].any():
            refused[reader.path] = reader.refusal
            candidates[units] = False
    errors = {unit: _errors(found, unit) for unit in np.flatnonzero(candidates).tolist()}
    spent = {path: fold.error for path, fold in folds.items()}
    # The smallest first, so that the tolerance goes far; several add up to their sum at most.
    for unit in sorted(errors, key=lambda each: max(errors[each].values())):
        after = {path: spent.get(path, 0.0) + error for path, error in errors[unit].items()}
        over = [path for path in after if errors[unit][path] > 0 and after[path] > tolerance]
        for path in over:
            refused.setdefault(path, f"its output would be off by {after[path]:.3g} at the borders")
        if over:
            candidates[unit] = False
        else:
            spent |= after
    return candidates, refused


def _errors(found: Sequence[Reader], unit: int) -> dict[str, float]:
    """Path of each reader of a unit to the error of folding that unit alone."""
    at = [(reader, reader.heard & (reader.units == unit)) for reader in found]
    return {reader.path: reader.error(chosen) for reader, chosen in at if chosen.any()}


def _fold(
    reader: Reader, chosen: np.ndarray, paths: Mapping[str, Any], before: Fold | None
) -> Fold:
    """Moves the channels `chosen`, bool (channels,), out of a reader's weights."""
    assert reader.into is not None
    shifts, holder = reader.shifts(chosen), paths[reader.into]
    shift = shifts.reshape(-1, shifts.shape[-1]).sum(axis=0)
    if reader.into == reader.path:
        holder.bias.assign(float_values(holder.bias) + shift)
    else:
        holder.moving_mean.assign(float_values(holder.moving_mean) - shift)
    kernel = np.moveaxis(reader.kernel.copy(), reader.axis, 0)
    kernel[chosen] = 0.0
    reader.variable.assign(np.moveaxis(kernel, 0, reader.axis))
    earlier = before or Fold(reader.path, reader.into, (), 0.0)
    channels = {*earlier.channels, *np.flatnonzero(chosen).tolist()}
    error = earlier.error + reader.error(chosen)
    return Fold(reader.path, reader.into, tuple(sorted(channels)), error)
