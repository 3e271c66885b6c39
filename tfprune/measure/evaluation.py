"""How good a model's answers are: the compared figure, the loss and the other metrics."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.data.splits import Examples, Split, Tree, by_name, leaves, mapped
from tfprune.errors import UsageError
from tfprune.figures import ACCURACY
from tfprune.formats import Feeds, Runtime
from tfprune.formats.signature import distinct
from tfprune.measure.agreement import are_probabilities
from tfprune.tasks.checks import check_values, check_weights, class_numbers, example_bytes
from tfprune.tasks.ends import Ends, Output, ends_of
from tfprune.tasks.finding import compiled_with, resolve
from tfprune.tasks.heads import Head
from tfprune.tasks.spec import LOSS, TaskSpec
from tfprune.tasks.task import Task

# Keras clips probabilities here too, so that one sure mistake does not cost infinity.
_FLOOR = 1e-7
# Inputs and outputs that are in memory at once, where a batch does not have more.
_MOST_BYTES = 1 << 26
_OPEN_SIZE = 64
# Of the sum of probabilities, for the rounding of int8.
_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One pass over examples with targets.

    Attributes:
        figure: The name of the compared figure, such as "accuracy" or "mean_iou".
        value: The figure; shares are 0 to 1. NaN where the model gives NaN for some example.
        loss: The mean loss of an example, the outputs' losses weighted and added. Of one class an
            example: the cross-entropy in nats. Regularizers of weights are not part of it.
        metrics: All metrics by name, the figure among them unless it is the loss.
        seconds: Wall-clock time of running the examples, without loading the model or the data.
        examples: Number of examples.
        per_class: The share of right answers among the examples of each class, by class number; of
            a segmentation the intersection over union. None for a class that has no example; empty
            where targets are not classes.
        class_examples: Number of examples, or of pixels, of each class.
    """

    figure: str
    value: float
    loss: float
    metrics: dict[str, float]
    seconds: float
    examples: int
    per_class: tuple[float | None, ...] = ()
    class_examples: tuple[int, ...] = ()


def evaluate(
    runtime: Runtime,
    examples: Split | Examples | tuple[Tree, ...],
    task: Task | TaskSpec | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Runs examples with targets through a model or a file, and measures its own outputs.

    Example:
        ```python
        evaluate(load("model.tflite"), (images, labels)).value  # the accuracy
        evaluate(load("net.onnx"), dataset.test, TaskSpec(kind="segmentation")).value  # mean IoU
        ```

    Examples are read, run and measured batch by batch. Metrics and losses are those of Keras, and
    sample weights count as in `model.evaluate`: metrics are weighted means, and the loss is the sum
    of weighted losses over the number of examples.

    Args:
        runtime: What `load` returned.
        examples: A split; or (inputs, targets) or (inputs, targets, weights): trees of arrays whose
            first axis counts the examples. Inputs are real values, such as pixels 0..255.
        task: What `find_task` found for the Keras model, or a specification. None: as a Keras model
            was compiled, else a classification.
        batch_size: Examples in one batch at most.
        progress: Told after each batch how many examples it had; maybe from another thread.

    Returns:
        The figure, the loss, the other metrics and the time it took.

    Raises:
        UsageError: Examples, task and model do not fit each other, or inputs are not finite.
    """
    if isinstance(examples, tuple):
        examples = Examples(*(mapped(np.asarray, tree) for tree in examples))
    if not len(examples):
        raise UsageError(f"no examples to run {runtime.name} on: give at least one")
    if not isinstance(task, Task):
        task = task_of(runtime, task, examples)
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}: give at least 1")
    names = _output_names(runtime, task)
    tallies: list[_Tally] = []
    seconds, count = 0.0, 0
    for inputs, targets, weights in _parts(examples, runtime, batch_size):
        feeds = _feeds(inputs, runtime, task)
        _check_finite(feeds, runtime.name)
        start = time.perf_counter()
        found = runtime.run(feeds, batch_size, progress)
        seconds += time.perf_counter() - start
        outputs = [found[name] for name in names]
        wanted, weighed = task.targets(targets), task.weights(weights)
        if not tallies:
            tallies = [
                _Tally(task, head, output, runtime, name, weight is not None, batch_size)
                for head, output, name, weight in zip(
                    task.heads, outputs, names, weighed, strict=True
                )
            ]
        for tally, target, output, weight in zip(tallies, wanted, outputs, weighed, strict=True):
            tally.update(np.asarray(target), output, weight)
        count += len(outputs[0])
    for tally in tallies:
        if tally.undefined:
            warnings.warn(
                f"{runtime.name} gives NaN for {tally.undefined:,} of {count:,} examples: what is "
                f"measured of {tally.head.where} is not a number",
                stacklevel=2,
            )
    return _evaluation(task, tallies, seconds, count)


def cross_entropy(outputs: np.ndarray, labels: np.ndarray, output_step: float = 0.0) -> float:
    """Mean cross-entropy of logits or probabilities, whichever the outputs are.

    They count as probabilities when every row is non-negative and sums to one, within what
    rounding each entry to `output_step` can add up to.

    Args:
        outputs: Shape `(n, classes)`.
        labels: Class numbers, shape `(n,)`.
        output_step: Distance of two neighbouring outputs, 0.0 for float outputs.

    Returns:
        Nats; no example costs more than `-log(1e-7)`, about 16.1.
    """
    entropy = _CrossEntropy(output_step)
    entropy.update(outputs, labels)
    return float(entropy.each().mean())


class _CrossEntropy:
    """The cross-entropy of examples that come in parts.

    Only all of them together tell whether the outputs are probabilities.

    Args:
        output_step: See `cross_entropy`.
        logits: False where the outputs are known to be probabilities, such as those of sigmoids,
            which sum to anything: then each row is divided by its sum, as Keras' losses do it.
    """

    def __init__(self, output_step: float, logits: bool | None = None) -> None:
        self._step = output_step
        self._logits = logits
        self._probabilities = True
        self._own: list[np.ndarray] = []
        self._softmax: list[np.ndarray] = []

    def update(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        outputs = np.asarray(outputs, np.float64)
        tolerance = 1e-3 + outputs.shape[1] * self._step / 2
        self._probabilities &= are_probabilities(outputs, tolerance)
        rows = np.arange(len(labels))
        if self._probabilities:
            self._own.append(outputs[rows, labels])
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        if self._logits is False:
            powers = np.maximum(outputs, _FLOOR)
        self._softmax.append(powers[rows, labels] / powers.sum(axis=1))

    def each(self) -> np.ndarray:
        """That of each example, float64 `(n,)`."""
        likelihood = np.concatenate(self._own if self._probabilities else self._softmax)
        entropy: np.ndarray = -np.log(np.clip(likelihood, _FLOOR, 1.0))
        return entropy


class _Tally:
    """The loss and the metrics of one output, over examples that come in parts."""

    def __init__(
        self,
        task: Task,
        head: Head,
        outputs: np.ndarray,
        runtime: Runtime,
        name: str,
        weighted: bool,
        batch_size: int,
    ) -> None:
        # What is known; the first examples alone may look like probabilities.
        known = head.logits
        head = dataclasses.replace(head, weighted=weighted)
        if head.has_classes and (head.output.channels or 0) > 1 and head.logits is None:
            # A file does not tell what its last operation was.
            rows = outputs.reshape(-1, outputs.shape[-1])
            head = dataclasses.replace(head, logits=not are_probabilities(rows, _TOLERANCE))
        self.head = head
        self._where = f"the data of {runtime.name}"
        self._batch_size = batch_size
        self._plain = head.is_plain_classification
        self._metrics = {
            task.history_name(head, each): each.make(head)
            for each in head.metrics
            if not (self._plain and each.name == ACCURACY.name)
        }
        self._accuracy = next(
            (
                task.history_name(head, each)
                for each in head.metrics
                if self._plain and each.name == ACCURACY.name
            ),
            None,
        )
        (tensor,) = [each for each in runtime.outputs if each.name == name]
        self._entropy = _CrossEntropy(tensor.scale or 0.0, known) if self._plain else None
        self._loss = None if self._plain else head.loss()
        self._lost, self._count = 0.0, 0
        self._weights: list[np.ndarray] = []
        self.undefined = 0
        # Of each class: examples, and those that are right; both weighted in the last two.
        self._seen = np.zeros((4, head.classes if head.has_classes else 0))

    def update(self, targets: np.ndarray, outputs: np.ndarray, weights: Any) -> None:
        head = self.head
        got, wanted = outputs.shape[1:], head.output.shape
        if len(got) != len(wanted) or any(
            size not in (None, here) for size, here in zip(wanted, got, strict=True)
        ):
            raise UsageError(
                f"{self._where}: outputs of shape {got} are not those of {head.where}, {wanted}"
            )
        # NaN is no answer, and yet the largest of some, and on one side of any threshold.
        self.undefined += int(np.isnan(outputs).reshape(len(outputs), -1).any(axis=1).sum())
        check_values(head, targets, self._where)
        if weights is not None:
            weights = np.asarray(weights, np.float32)
            check_weights(head, weights, self._where)
        if head.has_classes and len(head.output.shape) <= 1:
            numbers = class_numbers(head, targets).reshape(-1)
            self._count_classes(numbers, outputs, weights)
            if self._entropy is not None:
                self._entropy.update(outputs, numbers)
                if weights is not None:
                    self._weights.append(weights.reshape(-1))
        if self._loss is None and not self._metrics:
            self._count += len(outputs)
            return
        for start in range(0, len(outputs), self._batch_size):
            rows = slice(start, start + self._batch_size)
            weight = None if weights is None else weights[rows]
            target, output = targets[rows], outputs[rows]
            if self._loss is not None:
                self._lost += float(self._loss(target, output, weight)) * len(output)
            for metric in self._metrics.values():
                metric.update_state(target, output, weight)
        self._count += len(outputs)

    def loss(self) -> float:
        """The mean loss of an example."""
        if self._entropy is None:
            return self._lost / self._count
        each = self._entropy.each()
        if self._weights:
            each = each * np.concatenate(self._weights)
        return float(each.mean())

    def metrics(self) -> dict[str, float]:
        """The metrics, by their names in a history."""
        found = {name: float(metric.result()) for name, metric in self._metrics.items()}
        if self._accuracy is not None:
            found = {self._accuracy: float(self._seen[3].sum() / self._seen[2].sum()), **found}
        return dict.fromkeys(found, math.nan) if self.undefined else found

    def per_class(self) -> tuple[tuple[float | None, ...], tuple[int, ...]]:
        """The share of right answers of each class, or its IoU, and the number of its examples."""
        head = self.head
        if self.undefined:
            return (), ()
        if head.has_classes and len(head.output.shape) <= 1:
            return _shares(self._seen[3], self._seen[2]), _whole(self._seen[0])
        for metric in self._metrics.values():
            if head.kind == "segmentation" and isinstance(metric, keras.metrics.IoU):
                # One row a class of the targets, one column a class of the outputs.
                counts = np.asarray(metric.total_cm, np.float64)
                right = np.diag(counts)
                union = counts.sum(axis=0) + counts.sum(axis=1) - right
                return _shares(right, union), _whole(counts.sum(axis=1))
        return (), ()

    def _count_classes(self, numbers: np.ndarray, outputs: np.ndarray, weights: Any) -> None:
        classes = self.head.classes
        if self.head.output.channels == 1:
            threshold = 0.0 if self.head.from_logits else 0.5
            answers = (outputs.reshape(-1) > threshold).astype(np.int64)
        else:
            answers = outputs.argmax(axis=1)
        right = answers == numbers
        for row, chosen, weighing in (
            (0, slice(None), None),
            (1, right, None),
            (2, slice(None), weights),
            (3, right, weights),
        ):
            some = None if weighing is None else weighing.reshape(-1)[chosen]
            self._seen[row] += np.bincount(numbers[chosen], some, minlength=classes)


def _evaluation(task: Task, tallies: Sequence[_Tally], seconds: float, count: int) -> Evaluation:
    losses = [
        (1.0 if head.weight is None else head.weight) * tally.loss()
        for head, tally in zip(task.heads, tallies, strict=True)
        if head.trained
    ]
    loss = losses[0] if len(losses) == 1 else math.fsum(losses)
    metrics = {name: value for tally in tallies for name, value in tally.metrics().items()}
    place = task.compared if task.compared is not None else 0
    alone = task.compared is not None or len(tallies) == 1
    per_class, class_examples = tallies[place].per_class() if alone else ((), ())
    value = loss if task.figure.name == LOSS else metrics[task.figure.name]
    return Evaluation(
        figure=task.figure.name,
        value=value,
        loss=loss,
        metrics=metrics,
        seconds=seconds,
        examples=count,
        per_class=per_class,
        class_examples=class_examples,
    )


def _shares(parts: np.ndarray, wholes: np.ndarray) -> tuple[float | None, ...]:
    return tuple(
        float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)
    )


def _whole(counts: np.ndarray) -> tuple[int, ...]:
    return tuple(int(count) for count in np.round(counts))


def task_of(runtime: Runtime, spec: TaskSpec | None, examples: Split | Examples) -> Task:
    """The task of a model or a file; a file tells little more than names and shapes."""
    model = getattr(runtime, "model", None)
    if isinstance(model, keras.Model):
        ends = dataclasses.replace(ends_of(model), where=runtime.name)
        return resolve(ends, spec, compiled_with(model), examples)
    outputs = tuple(
        Output(each.name, each.shape[1:], runtime.activation(each.name)) for each in runtime.outputs
    )
    structure = 0 if len(outputs) == 1 else list(range(len(outputs)))
    inputs = tuple(each.name for each in runtime.inputs)
    return resolve(Ends(runtime.name, inputs, outputs, structure), spec, None, examples)


def _output_names(runtime: Runtime, task: Task) -> list[str]:
    """What the file calls the outputs of the task, in the order of the task."""
    found = [each.name for each in runtime.outputs]
    if len(found) == len(task.heads) == 1:
        return found
    names = distinct(task.ends.keras_names)
    if sorted(names) != sorted(found):
        raise UsageError(
            f"{runtime.name} gives {', '.join(found)}, and the task is about {', '.join(names)}: "
            "give the task of this model"
        )
    return names


def _feeds(inputs: Tree, runtime: Runtime, task: Task) -> Feeds:
    """The inputs by the names of the file."""
    wanted = [each.name for each in runtime.inputs]
    if len(wanted) == 1:
        parts = leaves(inputs)
        if len(parts) != 1:
            raise UsageError(f"{runtime.name} has one input, and the data have {len(parts)}")
        return {wanted[0]: np.asarray(parts[0])}
    if isinstance(inputs, dict):
        inputs = dict(zip(distinct(list(inputs)), inputs.values(), strict=True))
    # A tuple has the order of the Keras model, which a file need not keep.
    names = distinct(list(task.ends.inputs))
    if sorted(names) != sorted(wanted):
        raise UsageError(
            f"{runtime.name} takes {', '.join(wanted)}, and the task's model takes "
            f"{', '.join(names)}: give the task of this model"
        )
    return {name: np.asarray(x) for name, x in by_name(inputs, names).items()}


def _check_finite(feeds: Feeds, name: str) -> None:
    """Refuses inputs of NaN: a ReLU makes some number of it, and the answer looks like one."""
    for x in feeds.values():
        if x.dtype.kind != "f" or np.isfinite(x).all():
            continue
        count = int((~np.isfinite(x)).reshape(len(x), -1).any(axis=1).sum())
        raise UsageError(
            f"the data of {name} have NaN or infinite values in the inputs of {count:,} examples: "
            "correct them, or leave these examples out"
        )


def _parts(
    examples: Split | Examples, runtime: Runtime, batch_size: int
) -> Iterator[tuple[Tree, Tree, Tree]]:
    """Inputs, targets and weights, whole batches at once as far as memory allows.

    A runtime with several threads works on several batches at once.
    """
    size = batch_size * max(1, _MOST_BYTES // (batch_size * _bytes_each(examples, runtime)))
    if isinstance(examples, Examples):
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            yield part.inputs, part.targets, part.weights
        return
    for inputs, targets, *weights in examples.ordered(size).as_numpy_iterator():
        yield inputs, targets, weights[0] if weights else None


def _bytes_each(examples: Split | Examples, runtime: Runtime) -> int:
    """About the bytes of one example with its outputs."""
    outputs = sum(
        4 * math.prod(_OPEN_SIZE if size is None else size for size in each.shape[1:])
        for each in runtime.outputs
    )
    return example_bytes(examples) + min(outputs, _MOST_BYTES)
