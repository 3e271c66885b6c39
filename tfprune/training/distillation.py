"""Distillation: a student learns from the outputs of a teacher and from the labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfprune.errors import UsageError

# The smallest probability whose logarithm is taken, so that it stays finite.
_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model that a student learns from.

    Example:
        ```python
        teacher = Teacher(tfprune.load("resnet56.keras"), weight=0.5, temperature=4.0)
        training.fit(student, dataset, settings, seed=0, teacher=teacher)
        ```

    Attributes:
        model: has the same input and output shapes as the student; it is not changed.
        weight: the weight of the teacher in the loss, 0 to 1; the labels have the rest.
        temperature: divides the logits of both models; above 0.
        probabilities: whether the models return probabilities instead of logits.
    """

    model: keras.Model
    weight: float = 0.5
    temperature: float = 4.0
    probabilities: bool = False


@contextmanager
def distilling(student: keras.Model, teacher: Teacher | None) -> Iterator[None]:
    """Adds the teacher to the training loss of a student within the context.

    Example:
        ```python
        with distilling(student, Teacher(model)):
            student.fit(x, y)
        ```

    The training loss is `(1 - weight) * loss + weight * temperature**2 * KL(teacher, student)`. The
    validation loss does not change.

    Args:
        student: a compiled model; after the context its loss is the former one again.
        teacher: the teacher; None changes nothing.

    Raises:
        UsageError: the two models have outputs of different shapes.

    Source:
        Hinton, Vinyals & Dean 2015, https://arxiv.org/abs/1503.02531.
    """
    if teacher is None:
        yield
        return
    if teacher.model.output_shape != student.output_shape:
        raise UsageError(
            f"teacher {teacher.model.name!r} returns {teacher.model.output_shape}, and student "
            f"{student.name!r} returns {student.output_shape}: give a teacher with equal outputs"
        )
    own = student.compute_loss
    # For the name "kl_divergence", Keras 3.15 uses a function and applies it to logits.
    divergence = keras.losses.KLDivergence()
    soft = keras.distillation.LogitsDistillation(teacher.temperature, divergence)

    def logits(outputs: Any) -> Any:
        outputs = ops.cast(outputs, "float32")
        return ops.log(ops.maximum(outputs, _LEAST)) if teacher.probabilities else outputs

    def compute_loss(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        loss = own(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if not training:
            return loss
        target = ops.stop_gradient(logits(teacher.model(x, training=False)))
        distance = soft.compute_loss(target, logits(y_pred))
        return (1 - teacher.weight) * loss + teacher.weight * ops.cast(distance, loss.dtype)

    student.compute_loss = compute_loss
    try:
        yield
    finally:
        del student.compute_loss
        # The traced training step still contains the teacher, so Keras must trace a new one.
        student.train_function = None
