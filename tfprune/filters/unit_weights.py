"""The weights of each removable unit, as the compiled training step sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.filters.groups import ChannelGroups


class AfterUpdate:
    """A constraint that lets its variable be, and does something else inside the same step.

    Keras applies constraints after the update, in the order of the trainable variables; on the
    last of them this is the one place inside the compiled step where all are up to date.
    """

    def __init__(self, inner: Callable[[Any], Any] | None, action: Callable[[], None]) -> None:
        self.inner = inner
        self._action = action
        self._variable: keras.Variable | None = None

    def on(self, variable: keras.Variable) -> None:
        """Becomes the variable's constraint."""
        self._variable = variable
        variable.constraint = self

    def __call__(self, value: Any) -> Any:
        """What the variable becomes: what it is after the inner constraint and the action."""
        assert self._variable is not None
        if self.inner is not None:
            self._variable.assign(self.inner(value))
        self._action()
        return self._variable.value


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


class UnitWeights:
    """What makes each removable unit of a model: filters, biases, gamma and beta.

    Attributes:
        units: int (count,), the removable units; the arrays below have their order.
        scaled: the weights that carry a unit's scale: gamma and beta, or else its filter and bias.
        following: the filters and biases before BatchNorm.
        sizes: float32 (count,), how many weights of a unit are in `scaled`.
    """

    def __init__(self, groups: ChannelGroups) -> None:
        units = [group.units[group.removable] for group in groups]
        self.units = np.concatenate(units or [np.empty(0, int)])
        index = np.full(groups.unit_count, -1)
        index[self.units] = np.arange(self.units.size)
        trainable = {id(variable) for variable in groups.model.trainable_variables}
        carriers = {id(entry.variable) for entry in groups.scaled()}
        parts = [
            Part(entry.variable, entry.axis, index[groups.unit[entry.ids]])
            for entry in groups.making("filter", "scale")
            if id(entry.variable) in trainable
        ]
        self.scaled = [part for part in parts if id(part.variable) in carriers]
        self.following = [part for part in parts if id(part.variable) not in carriers]
        self.sizes = np.zeros(self.units.size, np.float32)
        for part in self.scaled:
            mine = part.position >= 0
            np.add.at(self.sizes, part.position[mine], part.weights_each)

    def squares(self, parts: Sequence[Part]) -> Any:
        """The sum of the squared weights of each unit, float32 (count,)."""
        count = self.units.size
        total = ops.zeros(count, "float32")
        for part in parts:
            others = [each for each in range(len(part.variable.shape)) if each != part.axis]
            squares = ops.sum(ops.square(ops.cast(part.variable, "float32")), axis=others)
            # Frozen channels carry position -1; one more segment takes them.
            spread = np.where(part.position >= 0, part.position, count)
            total += ops.segment_sum(squares, spread, count + 1)[:-1]
        return total

    def scale(self, parts: Sequence[Part], factor: Any) -> None:
        """Multiplies the weights of each unit in place by its entry of `factor`, (count,)."""
        factor = ops.concatenate([factor, ops.ones(1)])
        for part in parts:
            shape = [1] * len(part.variable.shape)
            shape[part.axis] = -1
            scale = ops.reshape(ops.take(factor, part.position), shape)
            part.variable.assign(part.variable * ops.cast(scale, part.variable.dtype))
