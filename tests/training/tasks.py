"""Tasks of small models for tests of trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfprune import data, figures


@dataclass(frozen=True)
class Losses:
    """The part of a task that a training needs.

    Attributes:
        arguments: makes the losses and metrics for `model.compile`.
        name: of the compared figure.
        better: its direction.
    """

    arguments: Callable[[], dict[str, Any]]
    name: str = "loss"
    better: figures.Direction = "lower"

    @property
    def figure(self) -> figures.Figure:
        number = figures.Number("", 3)
        return figures.Figure(self.name, self.name, number, "artifact", "", self.better)

    def compile_arguments(self) -> dict[str, Any]:
        return self.arguments()

    def check(self, model: Any, dataset: data.Dataset) -> None:
        pass

    def weigh_classes(self, batches: Any, train: data.Split) -> Any:
        return batches
