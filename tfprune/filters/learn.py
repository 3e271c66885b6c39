"""Learns which channels a model can do without, while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.lasso import GroupLasso, shrinkage


class _AfterUpdate:
    """A constraint that lets its variable be, and does something else inside the same step.

    Keras applies constraints after the update, in the order of the trainable variables; on the
    last of them this is the one place inside the compiled step where all are up to date.
    """

    def __init__(self, inner: Callable[[Any], Any] | None, action: Callable[[], None]) -> None:
        self.inner = inner
        self._action = action
        self._variable: keras.Variable | None = None

    def on(self, variable: keras.Variable) -> None:
        self._variable = variable
        variable.constraint = self

    def __call__(self, value: Any) -> Any:
        assert self._variable is not None
        if self.inner is not None:
            self._variable.assign(self.inner(value))
        self._action()
        return self._variable.value


@dataclass(frozen=True, eq=False)
class _Part:
    """One axis of a weight, and for each of its entries the number of its group, -1 for none."""

    variable: keras.Variable
    axis: int
    position: np.ndarray

    @property
    def weights_each(self) -> float:
        return math.prod(self.variable.shape) / self.variable.shape[self.axis]


class LearnStructure(keras.callbacks.Callback):
    """Trains under group lasso over channel groups, so that whole channels become exactly zero.

    One group is everything that makes a removable channel: its filter in each of the coupled
    layers, its biases, and its BatchNorm gamma and beta. After every update, inside the compiled
    step, each group is moved by the proximal step of `GroupLasso`; the loss itself carries no
    penalty. A group that reaches zero contributes nothing, so `tfprune.slim(model, dead=True)`
    removes it for free.

    A filter before BatchNorm has a direction but no scale: shrinking it changes no output, and
    only makes its next steps larger, until training breaks down. So the norm of a group, and the
    shrinkage, are those of the weights that carry its scale (gamma and beta, or the filter and bias
    where no BatchNorm follows); the filters before BatchNorm become zero when their group does.

    Use it as a callback of any `model.fit`. Nothing of it remains in the model afterwards.

    Args:
        penalty: the regularizer whose proximal step is taken, or its strength. Its groups must be
            `filter`.

    Raises:
        UsageError: the penalty groups something other than filters, or, when training begins, the
            model has no graph or no removable channel.

    Source:
        Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks; Yuan & Lin 2006;
        Parikh & Boyd 2014 for the proximal step.
    """

    def __init__(self, penalty: GroupLasso | float) -> None:
        super().__init__()
        self.penalty = penalty if isinstance(penalty, GroupLasso) else GroupLasso(penalty)
        if self.penalty.groups != "filter":
            raise UsageError(
                f"LearnStructure learns which filters can go, not {self.penalty.groups!r} groups: "
                "put such a GroupLasso on the kernels as their regularizer"
            )
        self._last: keras.Variable | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the groups and puts the proximal step into the training step."""
        self._detach()
        groups = ChannelGroups(self.model)
        trainable = {id(variable) for variable in self.model.trainable_variables}
        removable = np.concatenate(
            [group.units[group.removable] for group in groups] or [np.empty(0, int)]
        )
        if not removable.size:
            raise UsageError(
                f"model {self.model.name!r} has no removable channel to learn about: see "
                "`tfprune inspect` for what freezes them"
            )
        index = np.full(groups.unit_count, -1)
        index[removable] = np.arange(removable.size)
        carriers = {id(entry.variable) for entry in groups.scaled()}
        parts = [
            _Part(entry.variable, entry.axis, index[groups.unit[entry.ids]])
            for entry in groups.making("filter", "scale")
            if id(entry.variable) in trainable
        ]
        self._scaled = [part for part in parts if id(part.variable) in carriers]
        self._following = [part for part in parts if id(part.variable) not in carriers]
        self._count = removable.size
        self._sizes = np.zeros(self._count, np.float32)
        for part in self._scaled:
            mine = part.position >= 0
            np.add.at(self._sizes, part.position[mine], part.weights_each)
        self._alive = keras.Variable(np.ones(self._count, np.float32), trainable=False)
        self._last = self.model.trainable_variables[-1]
        _AfterUpdate(self._last.constraint, self._proximal_step).on(self._last)
        # A step traced earlier would not contain the constraint.
        self.model.make_train_function(force=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells progress bars the share of removable channels that are zero."""
        if logs is not None and batch % 50 == 0:
            self._share = self.dead_share()
        if logs is not None:
            logs["sparsity"] = self._share

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the share of removable channels that are zero, as `sparsity`."""
        if logs is not None:
            logs["sparsity"] = self._share = self.dead_share()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves nothing behind in the model."""
        # Averaged weights (use_ema), which Keras has just put in place, remember dead channels.
        self._scale(self._scaled + self._following, self._alive)
        self._detach()

    def dead_share(self) -> float:
        """The share of the removable channels whose every weight is zero, 0 to 1."""
        return 1 - float(ops.mean(self._alive))

    _share = 0.0

    def _detach(self) -> None:
        if self._last is not None and isinstance(self._last.constraint, _AfterUpdate):
            self._last.constraint = self._last.constraint.inner
            self.model.train_function = None
        self._last = None

    def _squares(self) -> Any:
        total = ops.zeros(self._count, "float32")
        for part in self._scaled:
            others = [each for each in range(len(part.variable.shape)) if each != part.axis]
            squares = ops.sum(ops.square(ops.cast(part.variable, "float32")), axis=others)
            # Frozen channels carry position -1; one more segment takes them.
            spread = np.where(part.position >= 0, part.position, self._count)
            total += ops.segment_sum(squares, spread, self._count + 1)[:-1]
        return total

    def _proximal_step(self) -> None:
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        # Constraints run at every accumulation step; so many small thresholds make one whole.
        share = 1 / (inner.gradient_accumulation_steps or 1)
        # Momentum makes 1 / (1 - momentum) of each gradient; the penalty must weigh as much against
        # the loss as it would as a term of it.
        share /= 1 - getattr(inner, "momentum", 0.0)
        threshold = optimizer.learning_rate * self.penalty.strength * share
        factor = shrinkage(self._squares(), self._sizes, threshold)
        # A dead channel stays dead: without its filter, beta could come back as a mere constant.
        self._alive.assign(self._alive * ops.cast(factor > 0, "float32"))
        self._scale(self._scaled, factor * self._alive)
        self._scale(self._following, self._alive)

    def _scale(self, parts: list[_Part], factor: Any) -> None:
        factor = ops.concatenate([factor, ops.ones(1)])
        for part in parts:
            shape = [1] * len(part.variable.shape)
            shape[part.axis] = -1
            scale = ops.reshape(ops.take(factor, part.position), shape)
            part.variable.assign(part.variable * ops.cast(scale, part.variable.dtype))
