"""Learning from another model's outputs as well as from the labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfprune.errors import UsageError

# Of an output that is a softmax already, the logarithm is taken; this keeps it finite.
_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model that a student learns from.

    Attributes:
        model: from the images that the student takes to as many outputs; it is not changed.
        weight: of the teacher's part in the loss, 0 to 1; the labels have the rest.
        temperature: by which both models' logits are divided, above 0.
        probabilities: whether the models give probabilities instead of logits.
    """

    model: keras.Model
    weight: float = 0.5
    temperature: float = 4.0
    probabilities: bool = False


@contextmanager
def taught(student: keras.Model, teacher: Teacher | None) -> Iterator[None]:
    """Within it, training `student` also pulls its outputs towards the teacher's.

    The loss of the training is `(1 - weight) * loss + weight * temperature**2 * KL(teacher,
    student)`; that of the validation is the student's own.

    Args:
        student: a model that is about to be trained; as it was afterwards.
        teacher: None teaches nothing.

    Raises:
        UsageError: the two models have outputs of other shapes.

    Source:
        Hinton, Vinyals & Dean 2015, https://arxiv.org/abs/1503.02531.
    """
    if teacher is None:
        yield
        return
    if teacher.model.output_shape != student.output_shape:
        raise UsageError(
            f"{teacher.model.name} gives {teacher.model.output_shape} and cannot teach "
            f"{student.name}, which gives {student.output_shape}"
        )
    own = student.compute_loss
    # By its name, "kl_divergence", Keras 3.15 takes a function, and applies it to the logits.
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
        said = logits(teacher.model(x, training=False))
        distance = soft.compute_loss(ops.stop_gradient(said), logits(y_pred))
        return (1 - teacher.weight) * loss + teacher.weight * ops.cast(distance, loss.dtype)

    student.compute_loss = compute_loss
    try:
        yield
    finally:
        del student.compute_loss
        # The step that was traced with the teacher would go on listening to it.
        student.train_function = None
