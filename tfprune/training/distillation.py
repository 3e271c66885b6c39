"""Distillation: a student learns from the outputs of a teacher and from the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import losses, ops, tree

from tfprune.errors import UsageError
from tfprune.model.graph import output_activation

# The smallest probability whose logarithm is taken, so that it stays finite.
_LEAST = 1e-7
_OF_CLASSES = (
    losses.sparse_categorical_crossentropy,
    losses.categorical_crossentropy,
    losses.categorical_focal_crossentropy,
)
_OF_LABELS = (losses.binary_crossentropy, losses.binary_focal_crossentropy)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model that a student learns from.

    Example:
        ```python
        teacher = Teacher(tfprune.load("resnet56.keras"), weight=0.5, temperature=4.0)
        training.fit(student, dataset, settings, seed=0, teacher=teacher)
        ```

    Attributes:
        model: has inputs and outputs of the same structure and shapes as the student; it is not
            changed. It may give probabilities where the student gives logits, and the other way.
        weight: the weight of the teacher in the loss, 0 to 1; the targets have the rest.
        temperature: divides the logits of both models; above 0. It has no part in regression.
    """

    model: keras.Model
    weight: float = 0.5
    temperature: float = 4.0


@contextmanager
def distilling(student: keras.Model, teacher: Teacher | None) -> Iterator[None]:
    """Adds the teacher to the training loss of a student within the context.

    Example:
        ```python
        with distilling(student, Teacher(model)):
            student.fit(x, y)
        ```

    The training loss is `(1 - weight) * loss + weight * distance`. The distance is a sum over the
    outputs, with the `loss_weights` of the student, of

    - `temperature**2 * KL(teacher, student)` for an output whose loss is a categorical
      cross-entropy, or that ends in a softmax;
    - `temperature**2 * binary cross-entropy` for one whose loss is a binary cross-entropy, or that
      ends in a sigmoid;
    - the mean squared error for any other, as of a regression.

    The classes of an output are its last axis. Sample weights have no part in the distance. The
    validation loss does not change.

    Args:
        student: a compiled model; after the context its loss is the former one again.
        teacher: the teacher; None changes nothing.

    Raises:
        UsageError: the two models have inputs or outputs of another structure or other shapes.

    Source:
        Hinton, Vinyals & Dean 2015, https://arxiv.org/abs/1503.02531.
    """
    if teacher is None:
        yield
        return
    _check_ends(student, teacher.model)
    own = student.compute_loss
    ends = [_Output(*pair) for pair in zip(student.outputs, teacher.model.outputs, strict=True)]

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
        taught = teacher.model(x, training=False)
        places = tree.pack_sequence_as(taught, list(range(len(ends))))
        distances: dict[int, Any] = {}
        # Keras knows the loss of each output once it has computed it.
        for path, of_output, weight, _ in student._compile_loss._flat_losses:
            target, answer, place = (_at(path, part) for part in (taught, y_pred, places))
            if place not in distances:
                distance = ends[place].distance(of_output, target, answer, teacher.temperature)
                distances[place] = distance if weight is None else weight * distance
        first, *others = distances.values()
        distance = sum(others, start=first)
        return (1 - teacher.weight) * loss + teacher.weight * ops.cast(distance, loss.dtype)

    # A step that was traced before does not contain the teacher, and Keras would run that one.
    student.compute_loss, student.train_function = compute_loss, None
    try:
        yield
    finally:
        del student.compute_loss
        # The traced training step still contains the teacher, so Keras must trace a new one.
        student.train_function = None


@dataclass(frozen=True, eq=False)
class _Output:
    """One output of a student and the same output of a teacher, as symbolic tensors."""

    student: keras.KerasTensor
    teacher: keras.KerasTensor

    def distance(self, loss: Any, target: Any, answer: Any, temperature: float) -> Any:
        """How far the answer of a student is from that of the teacher.

        Args:
            loss: what Keras computes the loss of this output with.
            target: the output of the teacher, of shape (batch, ...).
            answer: the output of the student, of the same shape.
            temperature: see `Teacher`.
        """
        function = getattr(loss, "fn", None)
        ends = [output_activation(tensor) for tensor in (self.teacher, self.student)]
        kind: str | None
        if function in _OF_CLASSES:
            kind = "softmax"
        elif function in _OF_LABELS:
            kind = "sigmoid"
        else:
            kind = ends[1]
        if kind not in _LOGITS:
            return losses.MeanSquaredError()(ops.stop_gradient(target), answer)
        logits = [
            _LOGITS[kind](ops.cast(output, "float32")) if end == kind else output
            for output, end in zip((target, answer), ends, strict=True)
        ]
        soft, own = (ops.cast(each, "float32") / temperature for each in logits)
        soft = ops.stop_gradient(soft)
        if kind == "softmax":
            distance = losses.KLDivergence()(ops.softmax(soft), ops.softmax(own))
        else:
            distance = losses.BinaryCrossentropy(from_logits=True)(ops.sigmoid(soft), own)
        return distance * temperature**2


def _softmax_logits(probabilities: Any) -> Any:
    return ops.log(ops.maximum(probabilities, _LEAST))


def _sigmoid_logits(probabilities: Any) -> Any:
    probabilities = ops.clip(probabilities, _LEAST, 1 - _LEAST)
    return ops.log(probabilities) - ops.log1p(-probabilities)


_LOGITS: dict[str, Callable[[Any], Any]] = {"softmax": _softmax_logits, "sigmoid": _sigmoid_logits}
"""What makes logits of probabilities, by the activation that made the probabilities."""


def _at(path: tuple[Any, ...], structure: Any) -> Any:
    for key in path:
        structure = structure[key]
    return structure


def _check_ends(student: keras.Model, teacher: keras.Model) -> None:
    for verb, attribute, what in (
        ("returns", "_outputs_struct", "outputs"),
        ("takes", "_inputs_struct", "inputs"),
    ):
        theirs, ours = (_shapes(model, attribute) for model in (teacher, student))
        if theirs != ours:
            raise UsageError(
                f"teacher {teacher.name!r} {verb} {theirs}, and student {student.name!r} {verb} "
                f"{ours}: give a teacher with equal {what}"
            )


def _shapes(model: keras.Model, attribute: str) -> Any:
    graph: Any = getattr(model, "_functional", None) or model
    structure = getattr(graph, attribute)
    shapes = tree.lists_to_tuples(
        tree.map_structure(lambda tensor: _Shape(tensor.shape), structure)
    )
    return shapes[0] if isinstance(shapes, tuple) and len(shapes) == 1 else shapes


class _Shape:
    """A shape that is a leaf of a tree."""

    def __init__(self, shape: tuple[int | None, ...]) -> None:
        self._shape = shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self._shape == other._shape

    def __hash__(self) -> int:
        return hash(self._shape)

    def __repr__(self) -> str:
        return str(self._shape)
