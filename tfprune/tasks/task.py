"""The task of a model: its losses and metrics as Keras takes them, and the compared figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from tfprune import figures
from tfprune.model.graph import ends_in_softmax
from tfprune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from tfprune.data import Dataset, Split


@dataclass(frozen=True, eq=False)
class Task:
    """What a model is trained for.

    Example:
        ```python
        task = find_task(model)
        model.compile("sgd", **task.compile_arguments())
        ```

    Attributes:
        figure: the figure that models and files are compared by.
        from_logits: whether the output has logits.
    """

    figure: figures.Figure
    from_logits: bool

    def compile_arguments(self) -> dict[str, Any]:
        """New losses and metrics for `model.compile`."""
        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=self.from_logits),
            "metrics": [keras.metrics.SparseCategoricalAccuracy("accuracy")],
        }

    def check(self, model: keras.Model, dataset: Dataset) -> None:
        """Checks that outputs and targets fit each other and the task."""

    def weigh_classes(self, batches: Any, train: Split) -> Any:
        """Training batches whose examples carry the weights of their classes.

        Without class weights, the batches come back as they are.
        """
        return batches


def find_task(
    model: keras.Model, spec: TaskSpec | None = None, dataset: Dataset | None = None
) -> Task:
    """The task of a model: as specified, else as it was compiled, else classification."""
    return Task(figures.figure(figures.ACCURACY), not ends_in_softmax(model))
