"""Channel groups: which channels can only be removed together, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import keras
import numpy as np
import pandas as pd

from tfprune.errors import UsageError
from tfprune.filters.channels import Role, Slice, Trace
from tfprune.filters.rules import follow
from tfprune.model.counting import MacCount, count_macs, describe_layers
from tfprune.model.graph import functional, named_layers


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Layers whose channels are coupled one to one.

    Attributes:
        layers: paths of the layers that make these channels, in the order of the model.
        units: int (size,), the removable units, in channel order; a unit is one channel of each
            of the layers.
        removable: bool (size,), False for the units that are frozen.
    """

    layers: tuple[str, ...]
    units: np.ndarray
    removable: np.ndarray

    @property
    def size(self) -> int:
        """How many channels each of the layers shares with the others."""
        return len(self.units)


class ChannelGroups(Sequence[ChannelGroup]):
    """The channel groups of one model, and all that planning needs to know of them.

    Attributes:
        model: the model that was walked.
        trace: what its rules recorded.
        unit: int (trace.count,), the removable unit of each channel id.
        unit_count: how many units there are.
        fixed: bool (unit_count,), the units that must stay.
        frozen: layer path to the reason why (some of) its channels cannot go.
        producers: layer path to the units of its channels, int (channels,).
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.trace = Trace()
        inputs = [self.trace.opaque(tensor.shape) for tensor in functional(model).inputs]
        for channels in follow(self.trace, model, inputs):
            self.trace.freeze(channels, "it is an output of the model")
        self.unit = self.trace.components()
        self.unit_count = int(self.unit.max(initial=-1)) + 1
        paths = {id(layer): path for path, layer in named_layers(model).items()}
        self.producers = {
            paths[id(layer)]: self.unit[ids] for layer, ids in self.trace.producers.values()
        }
        self.fixed = np.zeros(self.unit_count, bool)
        for remark in self.trace.frozen:
            self.fixed[self.unit[remark.ids]] = True
        self.frozen = self._reasons()
        self._groups = self._partition()

    def _reasons(self) -> dict[str, str]:
        reason: dict[int, str] = {}
        # The first remark is the one nearest to where the channels are made.
        for remark in self.trace.frozen:
            for unit in self.unit[remark.ids]:
                reason.setdefault(int(unit), remark.reason)
        frozen: dict[str, str] = {}
        for path, units in self.producers.items():
            reasons = [reason[int(unit)] for unit in units if int(unit) in reason]
            if reasons:
                partly = "" if len(reasons) == len(units) else f"{len(reasons)} of {len(units)}: "
                frozen[path] = partly + "; ".join(dict.fromkeys(reasons))
        return frozen | self._unfollowed()

    def _unfollowed(self) -> dict[str, str]:
        """The layers with a kernel that no rule followed: nothing of them is removed."""
        followed = {variable for variable, _ in self.trace.slices}
        reasons = {remark.layer: remark.reason for remark in self.trace.frozen}
        unfollowed = {}
        for path, layer in named_layers(self.model).items():
            kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
            if kernels and not any(id(kernel) in followed for kernel in kernels):
                kind = type(layer).__name__
                unfollowed[path] = reasons.get(
                    layer.name, f"{layer.name} is a {kind}, which has no rule"
                )
        return unfollowed

    def _partition(self) -> list[ChannelGroup]:
        makers: dict[int, list[str]] = {}
        for path, units in self.producers.items():
            for unit in dict.fromkeys(units.tolist()):
                makers.setdefault(unit, []).append(path)
        members: dict[tuple[str, ...], list[int]] = {}
        for unit, layers in makers.items():
            members.setdefault(tuple(layers), []).append(unit)
        return [
            ChannelGroup(layers, np.array(units), ~self.fixed[units])
            for layers, units in members.items()
        ]

    @overload
    def __getitem__(self, index: int) -> ChannelGroup: ...
    @overload
    def __getitem__(self, index: slice) -> list[ChannelGroup]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self._groups)

    def __repr__(self) -> str:
        free = sum(bool(group.removable.any()) for group in self)
        return f"<ChannelGroups of {self.model.name!r}: {len(self)}, {free} removable>"

    def kept(self, alive: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Bool (len(ids),): which of `ids` are alive when the units `alive` (unit_count,) are."""
        return alive[self.unit[ids]]

    def making(self, *roles: Role) -> list[Slice]:
        """The slices of weights with the given roles."""
        return [entry for entry in self.trace.slices.values() if entry.role in roles]

    def scaled(self) -> list[Slice]:
        """The slices that carry a channel's scale: gamma and beta, or else its filter and bias.

        BatchNorm with a gamma takes the scale out of the filter before it, so gamma and beta alone
        say how much comes out.
        """
        made = self.making("filter", "scale")
        return [entry for entry in made if id(entry.variable) not in self.trace.normalized]

    def dead(self) -> np.ndarray:
        """Bool (unit_count,): the units that contribute nothing to any output.

        A unit is dead when, wherever a weight reads it, either its value is always zero or the
        weight is. Frozen units are never dead, since their readers are not known, and neither are
        those whose removal is inexact: a softmax hears a channel that is always zero.
        """
        live = self.fixed.copy()
        for remark in self.trace.inexactness:
            live[self.unit[remark.ids]] = True
        for read in self.trace.reads:
            kernel = np.asarray(keras.ops.convert_to_numpy(read.variable))
            axes = tuple(axis for axis in range(kernel.ndim) if axis != read.axis)
            heard = (kernel != 0).any(axis=axes) & (read.channels.constant != 0)
            live[self.unit[read.channels.ids[heard]]] = True
        return ~live


def channel_groups(model: keras.Model) -> ChannelGroups:
    """The groups of channels that can only be removed together.

    Example:
        ```python
        [group.layers for group in tfprune.channel_groups(model)]  # [("conv", "shortcut"), ...]
        ```

    Args:
        model: a functional or built Sequential Keras model.

    Returns:
        A sequence of `ChannelGroup`, in the order of the model; its `.frozen` maps the layers
        whose channels cannot be removed to the reason.

    Raises:
        UsageError: the model is subclassed or not built.
    """
    return ChannelGroups(model)


# -- multiply-accumulates and parameters --------------------------------------------------------


class ModelSize:
    """Multiply-accumulates and parameters as functions of the units that live."""

    def __init__(self, groups: ChannelGroups) -> None:
        self._groups = groups
        self._weights = groups.model.weights

    @cached_property
    def _work(self) -> MacCount:
        # Only when asked for: a model of open sizes has parameters, but no count of these.
        return count_macs(self._groups.model)

    def macs(self, alive: np.ndarray) -> int:
        """Multiply-accumulates of one example with the units `alive`, bool (unit_count,).

        Raises:
            UsageError: a layer's cannot be counted, or a size is open.
        """
        if self._work.uncounted:
            raise UsageError(
                f"model {self._groups.model.name!r} has layers whose multiply-accumulates cannot "
                "be counted, so no share of them is known: "
                f"{describe_layers(self._work.uncounted)}; give params= or filters= as the target"
            )
        kernels = [use for use in self._work.uses if use.kernel is not None]
        shapes = self._shapes((use.kernel for use in kernels), alive)
        # Products of activations stay: what they multiply is frozen.
        products = sum(use.macs for use in self._work.uses if use.kernel is None)
        return products + sum(
            use.positions * math.prod(shape) for use, shape in zip(kernels, shapes, strict=True)
        )

    @property
    def counts_macs(self) -> bool:
        """Whether `macs` knows of all layers."""
        return not self._work.uncounted

    def params(self, alive: np.ndarray) -> int:
        """Parameters, statistics included, with the units `alive`, bool (unit_count,)."""
        return sum(math.prod(shape) for shape in self._shapes(self._weights, alive))

    def _shapes(self, variables: Iterable[keras.Variable], alive: np.ndarray) -> list[list[int]]:
        slices = self._groups.trace.slices
        shapes = []
        for variable in variables:
            shape = list(variable.shape)
            for axis in range(len(shape)):
                entry = slices.get((id(variable), axis))
                if entry is not None:
                    shape[axis] = int(self._groups.kept(alive, entry.ids).sum())
            shapes.append(shape)
        return shapes


def group_table(groups: ChannelGroups) -> pd.DataFrame:
    """What each channel group is made of, and what share of the model it is.

    Example:
        ```python
        group_table(channel_groups(model))
        ```

    Args:
        groups: what `tfprune.channel_groups` returned.

    Returns:
        One row a group, with columns layers (joined by " + "), channels, removable, and
        macs_share and params_share: the share, 0 to 1, of the model's that makes or reads these
        channels. Shares overlap, since what one layer makes another reads. macs_share is None where
        a layer's multiply-accumulates cannot be counted.
    """
    size = ModelSize(groups)
    full = np.ones(groups.unit_count, bool)
    rows = []
    for group in groups:
        without = full.copy()
        without[group.units] = False
        rows.append(
            {
                "layers": " + ".join(group.layers),
                "channels": group.size,
                "removable": int(group.removable.sum()),
                "macs_share": (
                    1 - size.macs(without) / size.macs(full) if size.counts_macs else None
                ),
                "params_share": 1 - size.params(without) / size.params(full),
            }
        )
    return pd.DataFrame(rows)
