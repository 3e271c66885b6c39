"""What the trainings of a lottery are given: masks that hold, an early step kept and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.weights.held import HeldMasks
from tfprune.weights.holding import Holding


@dataclass(frozen=True, eq=False)
class Early:
    """A training as it was after some of its steps.

    Attributes:
        step: how many.
        weights: as of `model.get_weights()`.
        optimizer: the values of `optimizer.variables`: its step, its rate, its slots.
    """

    step: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]


class HoldMasks(Holding):
    """Holds given masks on weights while a model trains.

    Unlike `KeepZeros` it does not read them from the zeros, so that a weight may live that is
    zero to begin with, as in a layer that is initialised with zeros.

    Args:
        variables: the weights; the model that trains may be another one that contains them.
        masks: bool arrays, one a weight, True where it lives.
    """

    def __init__(self, variables: Sequence[keras.Variable], masks: Sequence[np.ndarray]) -> None:
        super().__init__()
        self._variables = list(variables)
        self._values = list(masks)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the masks on."""
        self._release()
        held = HeldMasks(self._variables)
        held.assign(self._values)
        self._hold(held)
        self._watch()


class KeepEarly(keras.callbacks.Callback):
    """Keeps a training as it was after a step.

    Args:
        model: whose weights are kept; the model that trains may be another one that contains it.
        step: counted by the optimizer, from 1.
    """

    def __init__(self, model: keras.Model, step: int) -> None:
        super().__init__()
        self._of = model
        self._step = step
        self._seen = 0
        self._early: Early | None = None

    def taken(self) -> Early:
        """What was kept.

        Raises:
            UsageError: the training did not come to the step, or passed over it.
        """
        if self._early is None:
            raise UsageError(
                f"train ended after {self._seen} steps, before step {self._step} to rewind to: "
                "rewind to an earlier one, or give fit the callbacks that train is called with"
            )
        if self._early.step > self._step:
            raise UsageError(
                f"rewind is step {self._step}, which train passed over on its way to step "
                f"{self._early.step}: choose a multiple of its steps_per_execution"
            )
        return self._early

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the step when it is there."""
        optimizer = self.model.optimizer
        self._seen = _iterations(optimizer)
        if self._early is None and self._seen >= self._step:
            values = [np.array(each) for each in optimizer.variables]
            self._early = Early(self._seen, self._of.get_weights(), values)


class Replay(keras.callbacks.Callback):
    """Lets a training begin at a step that was kept, and end where it would have ended.

    The optimizer gets its state of that step back: its count of steps, which schedules of the
    learning rate follow, and its slots, without which the bias corrections of Adam (Kingma & Ba
    2015) would be those of averages that have long settled.

    Args:
        early: the step.
    """

    def __init__(self, early: Early) -> None:
        super().__init__()
        self._early = early
        self._steps: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the optimizer back."""
        optimizer = self.model.optimizer
        self._steps = self.params.get("steps")
        if _iterations(optimizer):
            # A second fit of the same training, or one that was restored.
            return
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        shapes = [tuple(each.shape) for each in optimizer.variables]
        if shapes != [value.shape for value in self._early.optimizer]:
            raise UsageError(
                "train: the optimizer has other variables than in the dense training: compile "
                "the model with the same one each time"
            )
        for variable, value in zip(optimizer.variables, self._early.optimizer, strict=True):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops where the whole training ends."""
        done = _iterations(self.model.optimizer)
        if self._steps and done >= self._steps * self.params["epochs"]:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Learns the length of an epoch where the data did not tell it."""
        self._steps = self._steps or _iterations(self.model.optimizer) - self._early.step


def _iterations(optimizer: Any) -> int:
    return int(keras.ops.convert_to_numpy(optimizer.iterations))
