"""The part of `LearnStructure` that runs inside the compiled training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.filters.stages import Stage, TrainingProgress
from tfprune.filters.unit_weights import UnitWeights
from tfprune.model.constraints import AfterUpdate, unlink
from tfprune.model.group_lasso import shrinkage


class ProximalStep:
    """Shrinks each unit after every update of the optimizer; one that reaches zero stays zero.

    It is a constraint on the last trainable variable of the model, see `AfterUpdate`.

    Args:
        model: that trains, compiled.
        weights: what makes the units.
        strength: of the group lasso, for all units alike.
        staged: whether the units of a stage are taken to zero by its end as well.
        collects: whether the gradients of the units are collected.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: UnitWeights,
        strength: float,
        *,
        staged: bool = False,
        collects: bool = False,
    ) -> None:
        self._model = model
        self._weights = weights
        self._staged = staged
        self._collects = collects
        # What a fit that goes on after a kill finds dead is dead.
        squares = ops.convert_to_numpy(weights.squares((*weights.scaled, *weights.following)))
        self._alive = keras.Variable((squares > 0).astype("float32"), trainable=False)
        self._dying = keras.Variable(np.zeros_like(weights.sizes), trainable=False)
        self._stage_end = keras.Variable(0, trainable=False, dtype="int32")
        self._strength = keras.Variable(strength, trainable=False, dtype="float32")
        self._gradients = keras.Variable(np.zeros_like(weights.sizes), trainable=False)
        self._variable: keras.Variable | None = None
        self._constraint: AfterUpdate | None = None
        # The optimizer whose gradients are collected.
        self._tapped: Any = None

    @property
    def alive(self) -> np.ndarray:
        """Bool (units,), the units that live."""
        return np.asarray(ops.convert_to_numpy(self._alive) > 0)

    @property
    def updates(self) -> int:
        """Updates of the optimizer so far."""
        return int(ops.convert_to_numpy(_inner(self._model.optimizer).iterations))

    @property
    def batches_per_step(self) -> int:
        """Batches whose gradients make one update."""
        return _inner(self._model.optimizer).gradient_accumulation_steps or 1

    @property
    def stage_over(self) -> bool:
        """Whether the stage has come to its end."""
        return self.updates >= int(ops.convert_to_numpy(self._stage_end))

    def progress(self) -> TrainingProgress:
        """What the plan of the next stage goes by."""
        return TrainingProgress(
            self.updates, self.alive, np.array(ops.convert_to_numpy(self._gradients))
        )

    def dead_share(self) -> float:
        """The share of the units that are zero, 0 to 1."""
        return 1 - float(ops.mean(self._alive))

    def attach(self) -> None:
        """Becomes a part of the model's training step, which is traced anew."""
        self._variable = self._model.trainable_variables[-1]
        self._constraint = AfterUpdate(self._variable.constraint, self._shrink)
        self._constraint.on(self._variable)
        if self._collects:
            self._tap()
        # A step traced earlier would not contain the constraint.
        self._model.make_train_function(force=True)

    def detach(self) -> None:
        """Leaves nothing behind in the model."""
        if self._variable is not None and self._constraint is not None:
            # Another callback may have put a mask above it.
            unlink(self._variable, self._constraint)
            self._model.train_function = None
        if self._tapped is not None:
            vars(self._tapped).pop("apply", None)
        self._variable = self._constraint = self._tapped = None

    def begin(self, stage: Stage) -> None:
        """Begins a stage; after the last one nothing is shrunk."""
        self._gradients.assign(ops.zeros_like(self._gradients))
        self._dying.assign(stage.dying.astype("float32"))
        self._stage_end.assign(stage.end)
        if stage.last:
            self._strength.assign(0.0)

    def silence_dead(self) -> None:
        """Sets the weights of dead units to zero, which may have been set since the last update."""
        weights = self._weights
        weights.scale((*weights.scaled, *weights.following), self._alive)

    def _tap(self) -> None:
        """Collects the gradients that the optimizer is given, inside the compiled step."""
        self._tapped = optimizer = _inner(self._model.optimizer)
        own, weights = optimizer.apply, self._weights

        def apply(grads: Sequence[Any], trainable_variables: Any = None) -> None:
            # `fit` names the variables; without names they are all, in their order.
            variables = trainable_variables or self._model.trainable_variables
            gradient = {id(key): value for key, value in zip(variables, grads, strict=True)}
            products = weights.products(weights.scaled, gradient)
            self._gradients.assign_add(ops.square(products))
            own(grads, trainable_variables)

        optimizer.apply = apply

    def _shrink(self) -> None:
        """The proximal step itself; it is traced into the training step."""
        inner, weights = _inner(self._model.optimizer), self._weights
        # Constraints run at every accumulation step; so many small thresholds make one whole.
        portion = 1 / self.batches_per_step
        # Momentum makes 1 / (1 - momentum) of each gradient; the penalty must weigh as much against
        # the loss as it would as a term of it.
        rate = portion / (1 - getattr(inner, "momentum", 0.0))
        threshold = self._model.optimizer.learning_rate * self._strength * rate
        factor = shrinkage(weights.squares(weights.scaled), weights.sizes, threshold)
        if self._staged:
            # This update is not counted yet: with one left, it is the last.
            left = ops.cast(self._stage_end - ops.cast(inner.iterations, "int32"), "float32")
            fading = ops.where(left > 1, 1 - portion / ops.maximum(left, 1.0), 0.0)
            factor = ops.minimum(factor, 1 - self._dying * (1 - fading))
        # A dead channel stays dead: without its filter, beta could come back as a mere constant.
        self._alive.assign(self._alive * ops.cast(factor > 0, "float32"))
        weights.scale(weights.scaled, factor * self._alive)
        weights.scale(weights.following, self._alive)


def _inner(optimizer: Any) -> Any:
    """The optimizer that moves the weights, below a loss scale."""
    return getattr(optimizer, "inner_optimizer", optimizer)
