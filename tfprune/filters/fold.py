"""Folds constants: what a channel gives to every reader alike goes into the readers' biases.

A filter without a live weight still emits its bias, or the beta after it, through the activation.
Once its readers hold that number themselves, the filter is dead and goes for free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import keras
import numpy as np
from keras import layers

from tfprune.errors import UsageError
from tfprune.filters.channels import Channels, Read, agreed, float_values
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.rules.arguments import channel_axis
from tfprune.model.activations import is_activation
from tfprune.model.cloning import compile_like, copy
from tfprune.model.graph import calls, functional, is_graph, named_layers
from tfprune.model.layer_table import CONVOLUTIONS


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

    Example:
        ```python
        folded, report = fold_constants(model)
        slim = tfprune.slim(folded, dead=True)
        ```

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
        model_readers = readers(groups)
        units, refused = _chosen(groups, model_readers, folds, tolerance)
        if not units.any():
            break
        for reader in model_readers:
            chosen = reader.heard & units[reader.units]
            if chosen.any():
                folds[reader.path] = _fold(reader, chosen, paths, folds.get(reader.path))
    compile_like(model, twin)
    return twin, FoldReport(tuple(folds[path] for path in paths if path in folds), refused)


def _constant(groups: ChannelGroups, model_readers: Sequence[Reader]) -> np.ndarray:
    heard, varying = np.zeros((2, groups.unit_count), bool)
    for reader in model_readers:
        heard[reader.units[reader.heard]] = True
        varying[reader.units[reader.heard & np.isnan(reader.constant)]] = True
    for remark in groups.trace.inexactness:
        varying[groups.unit[remark.ids]] = True
    return heard & ~varying & ~groups.fixed


def _chosen(
    groups: ChannelGroups,
    model_readers: Sequence[Reader],
    folds: Mapping[str, Fold],
    tolerance: float,
) -> tuple[np.ndarray, dict[str, str]]:
    """Which units can be folded at all their readers, and which readers refuse others.

    Args:
        groups: the channel groups of the model as it is now.
        model_readers: its readers.
        folds: what was folded so far, by the reader's path.
        tolerance: the most that any reader may be off.

    Returns:
        Bool (unit_count,), and path to reason.
    """
    constant = _constant(groups, model_readers)
    candidates = constant.copy()
    refused: dict[str, str] = {}
    for reader in model_readers:
        units = reader.units[reader.heard]
        if reader.into is None and constant[units].any():
            refused[reader.path] = reader.refusal
            candidates[units] = False
    errors = {unit: _errors(model_readers, unit) for unit in np.flatnonzero(candidates).tolist()}
    spent = {path: fold.error for path, fold in folds.items()}
    # The smallest first, so that the tolerance goes far; several add up to their sum at most.
    for unit in sorted(errors, key=lambda unit: max(errors[unit].values())):
        after = {path: spent.get(path, 0.0) + error for path, error in errors[unit].items()}
        over = [path for path in after if errors[unit][path] > 0 and after[path] > tolerance]
        for path in over:
            refused.setdefault(path, f"its output would be off by {after[path]:.3g} at the borders")
        if over:
            candidates[unit] = False
        else:
            spent |= after
    return candidates, refused


def _errors(model_readers: Sequence[Reader], unit: int) -> dict[str, float]:
    """Path of each reader of a unit to the error of folding that unit alone."""
    at = [(reader, reader.heard & (reader.units == unit)) for reader in model_readers]
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


# -- readers of channels ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reader:
    """A weight that reads channels, at all of its calls.

    Attributes:
        path: of the layer that owns it.
        layer: that layer.
        variable: the weight.
        kernel: its value, float64.
        axis: which of its axes meets the channels, counted from the front.
        inputs: the channels it meets, one entry a call.
        units: int (channels,).
        constant: float (channels,), the value that a channel has at every call, position and
            example, else NaN.
        heard: bool (channels,), whether a channel that is not always zero meets weights that are
            not.
        into: path of the layer that can hold constants for it, None where there is none.
        refusal: why there is none.
    """

    path: str
    layer: Any
    variable: keras.Variable
    kernel: np.ndarray
    axis: int
    inputs: tuple[Channels, ...]
    units: np.ndarray
    constant: np.ndarray
    heard: np.ndarray
    into: str | None
    refusal: str

    def shifts(self, chosen: np.ndarray) -> np.ndarray:
        """What each tap of the kernel makes of some constants.

        Args:
            chosen: bool (channels,), which of them; all must be constant.

        Returns:
            float (*kernel_size, filters), or (units,) of a dense layer.
        """
        return np.tensordot(
            self.constant[chosen], np.compress(chosen, self.kernel, self.axis), (0, self.axis)
        )

    def error(self, chosen: np.ndarray) -> float:
        """How far off the output is at the borders when the channels `chosen` are in the bias."""
        if type(self.layer) not in CONVOLUTIONS:
            return 0.0
        shifts = self.shifts(chosen)
        return max(border_error(self.layer, _sizes(channels), shifts) for channels in self.inputs)


def readers(groups: ChannelGroups) -> list[Reader]:
    """Every weight of a model that reads channels."""
    reads: dict[int, list[Read]] = {}
    for read in groups.trace.reads:
        # No rule reads two axes of one weight.
        reads.setdefault(id(read.variable), []).append(read)
    owners = {
        id(variable): (path, layer)
        for path, layer in named_layers(groups.model).items()
        for variable in layer.weights
    }
    norms = _norms(groups.model)
    return [_reader(groups, *owners[key], meetings, norms) for key, meetings in reads.items()]


def _reader(
    groups: ChannelGroups, path: str, layer: Any, reads: Sequence[Read], norms: dict[str, str]
) -> Reader:
    variable, axis = reads[0].variable, reads[0].axis
    kernel = float_values(variable)
    inputs = tuple(read.channels for read in reads)
    constants = np.stack([channels.constant for channels in inputs])
    others = tuple(other for other in range(kernel.ndim) if other != axis)
    into = path if getattr(layer, "use_bias", False) else norms.get(path)
    refusal = ""
    if type(layer) not in (layers.Dense, *CONVOLUTIONS):
        refusal = f"no bias of a {type(layer).__name__} can stand in for it"
    elif into is None:
        refusal = "the layer has no bias, and is not read by a BatchNorm alone"
    elif type(layer) in CONVOLUTIONS and layer.padding != "valid" and any(map(_open, inputs)):
        refusal = "the layer pads images of open size"
    return Reader(
        path=path,
        layer=layer,
        variable=variable,
        kernel=kernel,
        axis=axis,
        inputs=inputs,
        units=groups.unit[inputs[0].ids],
        constant=agreed(constants),
        heard=(kernel != 0).any(axis=others) & (constants != 0).any(axis=0),
        into=None if refusal else into,
        refusal=refusal,
    )


def _sizes(channels: Channels) -> list[int]:
    """The sizes of an image, without batch and channels, 0 where one is open."""
    sizes = enumerate(channels.shape)
    return [size or 0 for place, size in sizes if place not in (0, channels.axis)]


def _open(channels: Channels) -> bool:
    return 0 in _sizes(channels)


def _norms(model: keras.Model, prefix: str = "") -> dict[str, str]:
    """The path of each layer whose weighted sums one BatchNorm alone reads, to the BatchNorm's.

    Args:
        model: one level of a model.
        prefix: what every path begins with.
    """
    level = list(calls(model))
    returned = {id(tensor) for tensor in functional(model).outputs}
    paths: dict[str, str] = {}
    for operation in functional(model).operations:
        if is_graph(operation):
            paths |= _norms(operation, f"{prefix}{operation.name}/")
        if not is_activation(getattr(operation, "activation", None), "linear"):
            continue
        made = [call.outputs[0] for call in level if call.operation is operation]
        reading = [call for call in level if any(tensor is made[0] for tensor in call.inputs)]
        if len(made) != 1 or len(reading) != 1 or id(made[0]) in returned:
            continue
        norm, rank = reading[0].operation, len(made[0].shape)
        alone = type(norm) is layers.BatchNormalization and len(norm._inbound_nodes) == 1
        if alone and norm.axis % rank == channel_axis(operation, rank):
            paths[prefix + operation.name] = prefix + norm.name
    return paths


# -- borders of padded images -------------------------------------------------------------------


def border_error(layer: Any, sizes: Sequence[int], shifts: np.ndarray) -> float:
    """The most that any number of a convolution's output lacks of what the whole kernel brings.

    Padding is zero whatever the image is. So where a constant comes in, the taps of the kernel that
    lie outside bring nothing.

    Args:
        layer: a Conv1D, Conv2D or Conv3D.
        sizes: of the image, without batch and channels.
        shifts: float (*kernel_size, filters); what each tap brings where it lies on the image.

    Returns:
        The largest absolute sum of the taps outside, over all positions and filters; 0 without
        padding.
    """
    if layer.padding == "valid":
        return 0.0
    axes = zip(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    met = [_met(*axis, causal=layer.padding == "causal") for axis in axes]
    return max(float(np.abs(missed).max()) for missed in _missed(met, shifts))


def _missed(met: Sequence[np.ndarray], shifts: np.ndarray) -> Iterator[np.ndarray]:
    """For each kind of position, float (filters,): what the taps outside would bring."""
    for rows in product(*met):
        inside = rows[0]
        for row in rows[1:]:
            inside = np.logical_and.outer(inside, row)
        yield shifts[~inside].sum(axis=0)


def _met(size: int, width: int, stride: int, dilation: int, *, causal: bool) -> np.ndarray:
    """Bool (kinds, width): which of a kernel's taps lie on the image, for each kind of position.

    Args:
        size: of the image, along one axis.
        width: of the kernel.
        stride: from one position to the next.
        dilation: from one tap to the next.
        causal: whether all padding comes before the image.
    """
    positions = -(-size // stride)
    reach = (width - 1) * dilation
    before = reach if causal else max((positions - 1) * stride + reach + 1 - size, 0) // 2
    places = np.arange(positions)[:, None] * stride + np.arange(width) * dilation - before
    return np.unique((places >= 0) & (places < size), axis=0)
