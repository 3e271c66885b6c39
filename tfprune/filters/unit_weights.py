"""The weights of what training may take to zero, as its compiled step sees them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfprune.filters.depth import ADDITIONS
from tfprune.filters.groups import ChannelGroups
from tfprune.model.activations import is_activation
from tfprune.model.graph import calls, functional, is_graph
from tfprune.model.layer_table import CONVOLUTIONS


@dataclass(frozen=True, eq=False)
class Part:
    """One axis of a weight, and for each of its entries the number of its group, -1 for none."""

    variable: keras.Variable
    axis: int
    position: np.ndarray

    @property
    def weights_each(self) -> float:
        """How many weights one entry of the axis has."""
        return math.prod(self.variable.shape) / self.variable.shape[self.axis]


@dataclass(frozen=True, eq=False)
class UnitWeights:
    """What makes each unit that training may take to zero.

    Attributes:
        names: of each unit, what it is a part of; the arrays below have this order.
        scaled: the weights that carry a unit's scale, whose norm is the unit's.
        following: the weights that become zero with their unit.
    """

    names: tuple[str, ...]
    scaled: tuple[Part, ...]
    following: tuple[Part, ...] = ()

    @cached_property
    def sizes(self) -> np.ndarray:
        """Float32 (units,), how many weights of a unit are in `scaled`."""
        sizes = np.zeros(len(self.names), np.float32)
        for part in self.scaled:
            mine = part.position >= 0
            np.add.at(sizes, part.position[mine], part.weights_each)
        return sizes

    def squares(self, parts: Sequence[Part]) -> Any:
        """The sum of the squared weights of each unit, float32 (units,)."""
        return self._sums(parts, lambda variable: ops.square(ops.cast(variable, "float32")))

    def _sums(self, parts: Sequence[Part], of: Callable[[keras.Variable], Any]) -> Any:
        count = len(self.names)
        total = ops.zeros(count, "float32")
        for part in parts:
            values = of(part.variable)
            if values is None:
                continue
            others = [axis for axis in range(len(part.variable.shape)) if axis != part.axis]
            # What belongs to no unit carries position -1; one more segment takes it.
            spread = np.where(part.position >= 0, part.position, count)
            total += ops.segment_sum(ops.sum(values, axis=others), spread, count + 1)[:-1]
        return total

    def products(self, parts: Sequence[Part], gradient: Mapping[int, Any]) -> Any:
        """The sum of gradient times weight of each unit, float32 (units,).

        Args:
            parts: the weights to count.
            gradient: of each variable, by its id; a variable that has none counts nothing.
        """
        return self._sums(
            parts,
            lambda variable: (
                None
                if gradient.get(id(variable)) is None
                else ops.cast(variable, "float32") * ops.cast(gradient[id(variable)], "float32")
            ),
        )

    def scale(self, parts: Sequence[Part], factor: Any) -> None:
        """Multiplies the weights of each unit in place by its entry of `factor`, (units,)."""
        factor = ops.concatenate([factor, ops.ones(1)])
        for part in parts:
            shape = [1] * len(part.variable.shape)
            shape[part.axis] = -1
            scale = ops.reshape(ops.take(factor, part.position), shape)
            part.variable.assign(part.variable * ops.cast(scale, part.variable.dtype))


def removable_units(groups: ChannelGroups) -> np.ndarray:
    """Int (units,): the units of `of_channels`, in its order."""
    units = [group.units[group.removable] for group in groups]
    return np.concatenate(units or [np.empty(0, int)])


def of_channels(groups: ChannelGroups) -> UnitWeights:
    """The weights of each removable unit: filters, biases, gamma and beta of all coupled layers.

    Before BatchNorm a filter has no scale: there gamma and beta carry it, and the filter follows.
    A unit is named after the first layer of its group.
    """
    units = removable_units(groups)
    names = [group.layers[0] for group in groups for _ in range(int(group.removable.sum()))]
    index = np.full(groups.unit_count, -1)
    index[units] = np.arange(units.size)
    trainable = {id(variable) for variable in groups.model.trainable_variables}
    carriers = {id(entry.variable) for entry in groups.scaled()}
    parts = [
        Part(entry.variable, entry.axis, index[groups.unit[entry.ids]])
        for entry in groups.making("filter", "scale")
        if id(entry.variable) in trainable
    ]
    return UnitWeights(
        tuple(names),
        tuple(part for part in parts if id(part.variable) in carriers),
        tuple(part for part in parts if id(part.variable) not in carriers),
    )


def of_branches(model: keras.Model) -> UnitWeights:
    """The weights that end each residual branch: without them it adds nothing.

    A branch is what is made by a convolution, dense layer or BatchNorm for one addition alone, to
    something that is not, so that something is left when the branch goes. It is named after the
    layer that ends it.
    """
    trainable = {id(variable) for variable in model.trainable_variables}
    ends = [
        (path, weights)
        for path, layer in _branch_ends(model)
        if (weights := [weight for weight in _scale_of(layer) if id(weight) in trainable])
    ]
    return UnitWeights(
        tuple(path for path, _ in ends),
        tuple(
            Part(weight, len(weight.shape) - 1, np.full(weight.shape[-1], place))
            for place, (_, weights) in enumerate(ends)
            for weight in weights
        ),
    )


# Zero comes out of these where zero goes in.
_KEEPING_ZERO = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.Identity,
    layers.ReLU,
)


def _branch_ends(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    every = list(calls(model))
    uses = Counter(id(tensor) for call in every for tensor in call.inputs)
    uses.update(id(tensor) for tensor in functional(model).outputs)
    made = {id(output): call for call in every for output in call.outputs}

    def end(tensor: keras.KerasTensor) -> keras.Layer | None:
        """The layer whose weights say whether a tensor that has this one use is zero."""
        while uses[id(tensor)] == 1 and id(tensor) in made:
            call = made[id(tensor)]
            if _scale_of(call.operation):
                # What is called twice would be zero there as well.
                return call.operation if len(call.operation._inbound_nodes) == 1 else None
            if not isinstance(call.operation, _KEEPING_ZERO):
                return None
            tensor = call.inputs[0]
        return None

    for call in every:
        if is_graph(call.operation):
            yield from _branch_ends(call.operation, f"{prefix}{call.operation.name}/")
        elif isinstance(call.operation, ADDITIONS) and len(call.inputs) > 1:
            ends = [end(tensor) for tensor in call.inputs]
            if None in ends:
                yield from ((f"{prefix}{layer.name}", layer) for layer in ends if layer is not None)


def _scale_of(layer: keras.Operation) -> list[keras.Variable]:
    if isinstance(layer, layers.BatchNormalization):
        # Without a gamma, beta alone does not silence it.
        return [layer.gamma, *([layer.beta] if layer.center else [])] if layer.scale else []
    if isinstance(layer, (layers.Dense, *CONVOLUTIONS)):
        plain = layer.activation is None or is_activation(layer.activation, "linear", "relu")
        return [layer.kernel, *([layer.bias] if layer.use_bias else [])] if plain else []
    return []
