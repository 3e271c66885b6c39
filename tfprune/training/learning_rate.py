"""A learning rate schedule for retraining that rewinds."""

from __future__ import annotations

from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable(package="tfprune", name="Late")
class RewoundSchedule(LearningRateSchedule):
    """A learning rate schedule that begins at a later step of another one.

    Example:
        ```python
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
        RewoundSchedule(schedule, 30)(0)  # schedule(30)
        ```

    Retraining that rewinds enters a schedule late, but with a new optimizer: Adam corrects its new
    moments by the number of its own steps, which therefore begins at 0.

    Args:
        schedule: the whole schedule.
        first_step: the step of `schedule` at step 0 of the optimizer.
    """

    def __init__(self, schedule: LearningRateSchedule, first_step: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.first_step = first_step

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step of the optimizer."""
        return self.schedule(step + self.first_step)

    def get_config(self) -> dict[str, Any]:
        """The config from which `from_config` builds an equal schedule."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "first_step": self.first_step}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RewoundSchedule:
        """Builds a schedule from its config."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["first_step"])
