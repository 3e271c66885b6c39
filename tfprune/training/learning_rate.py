"""The learning rate of a training that rewinds."""

from __future__ import annotations

from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable(package="tfprune", name="Late")
class RewoundSchedule(LearningRateSchedule):
    """A learning rate schedule that begins at one of its later steps.

    A training that rewinds enters a schedule late, with an optimizer that begins: Adam corrects
    its fresh moments by the number of its own steps.

    Args:
        schedule: the whole schedule.
        first_step: where in it the optimizer's first step lies, counted from 0.
    """

    def __init__(self, schedule: LearningRateSchedule, first_step: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.first_step = first_step

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step of the optimizer."""
        return self.schedule(step + self.first_step)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "first_step": self.first_step}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RewoundSchedule:
        """The schedule of a config."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["first_step"])
