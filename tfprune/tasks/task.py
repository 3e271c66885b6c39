"""The task of a model: its losses and metrics as Keras takes them, and the compared figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from packaging.version import Version

from tfprune.data.splits import Split, Tree, leaves, mapped
from tfprune.errors import UsageError, did_you_mean
from tfprune.figures import Figure
from tfprune.tasks.checks import (
    check_class_count,
    check_classes,
    check_values,
    check_weights,
    class_numbers,
    is_usual,
    some_of,
    splits,
    target_values,
    try_head,
)
from tfprune.tasks.ends import Ends, ends_of
from tfprune.tasks.heads import (
    ONE_HOT,
    Head,
    NamedMetric,
)

if TYPE_CHECKING:
    from tfprune.data import Dataset


_TRIED = 4
# From this version on, Keras takes losses and metrics by the keys of a dict of outputs.
_BY_KEYS = Version("3.12")


@dataclass(frozen=True, eq=False)
class Task:
    """What a model is trained for.

    Example:
        ```python
        task = find_task(model, TaskSpec(kind="regression", unit="mm"), dataset)
        task.check(model, dataset)
        model.compile("adam", **task.compile_arguments())
        task.figure.name  # "mae": the history has "mae" and "val_mae"
        ```

    Attributes:
        figure: the figure that models and files are compared by: its name in histories and
            records, its unit, and which way is better.
        heads: the outputs with their losses and metrics, in the order of the model.
        ends: what the model takes and gives.
        weighted: whether the examples have weights. Then the metrics are weighted, too.
        compared: the place of the head of the figure; None for the loss of all.
        class_weights: of the training loss; None where all classes count the same.
        classes: the names of the classes.
    """

    figure: Figure
    heads: tuple[Head, ...]
    ends: Ends
    weighted: bool = False
    compared: int | None = None
    class_weights: str | dict[str, float] | None = None
    classes: tuple[str, ...] = ()

    def compile_arguments(self) -> dict[str, Any]:
        """New losses and metrics for `model.compile`.

        Example:
            ```python
            model.compile("sgd", **task.compile_arguments())
            ```

        Returns:
            `loss`, `metrics` (`weighted_metrics` where the examples have weights) and, if they
            differ, `loss_weights`. The history has the figure under `task.figure.name`.

        Raises:
            UsageError: it is not known whether the outputs are logits.
        """
        losses = [head.loss() for head in self.heads]
        measured = [[each.make(head) for each in head.metrics] for head in self.heads]
        alone = len(self.heads) == 1
        arguments: dict[str, Any] = {"loss": losses[0] if alone else self._nested(losses)}
        if any(measured):
            key = "weighted_metrics" if self.weighted else "metrics"
            arguments[key] = measured[0] if alone else self._nested(measured)
        weights = [head.weight for head in self.heads]
        if any(weight is not None for weight in weights):
            filled = [1.0 if weight is None else weight for weight in weights]
            arguments["loss_weights"] = filled if alone else self._nested(filled)
        return arguments

    def history_name(self, head: Head, metric: NamedMetric) -> str:
        """What Keras' history calls a metric of an output."""
        return metric.name if len(self.heads) == 1 else f"{head.name}_{metric.name}"

    def targets(self, tree: Tree) -> list[Any]:
        """The targets in the order of the heads.

        Raises:
            UsageError: they are others than the outputs.
        """
        return self.ends.arrays(tree, "targets")

    def weights(self, tree: Tree) -> list[Any]:
        """The sample weights in the order of the heads; a single array counts for each of them."""
        if tree is None:
            return [None] * len(self.heads)
        parts = leaves(tree)
        if len(parts) == 1 and len(self.heads) > 1:
            return parts * len(self.heads)
        return self.ends.arrays(tree, "sample weights")

    def check(self, model: keras.Model, dataset: Dataset) -> None:
        """Checks that outputs and targets fit each other and the task, before the first epoch.

        Example:
            ```python
            find_task(model, TaskSpec(kind="segmentation"), dataset).check(model, dataset)
            ```

        Labels of classes are all looked at; of other targets that are not in memory, up to 256
        examples of each split.

        Args:
            model: the model that is trained.
            dataset: the data.

        Raises:
            UsageError: they do not fit, the train split has a single class, or a loss or a metric
                cannot be computed on them.
        """
        ends = ends_of(model)
        if ends.names != self.ends.names:
            raise UsageError(
                f"{ends.where} has the outputs {', '.join(ends.names)}, and the task is about "
                f"{', '.join(self.ends.names)}: find the task of this model"
            )
        _check_keys(ends)
        if dataset.classes and len(self.heads) == 1 and self.heads[0].kind == "classification":
            check_class_count(self.heads[0], dataset)
        seen: dict[str, set[int]] = {}
        for part, split in splits(dataset):
            where = f"{dataset.name} ({part})"
            for head, values in zip(
                self.heads, target_values(self.heads, self.targets, split, where), strict=True
            ):
                check_values(head, values, where)
                if head.kind in ("classification", "binary") and len(head.output.shape) == 1:
                    numbers = class_numbers(head, values)
                    seen.setdefault(head.name, set())
                    check_classes(head, numbers, part, where, seen[head.name], self.classes)
            self._check_weights(split, where)
        self._try(dataset)
        if self.class_weights is not None:
            self._class_table(dataset.train)

    def weigh_classes(self, batches: Any, train: Split) -> Any:
        """Training batches whose examples carry the weights of their classes.

        Example:
            ```python
            batches = data.batches(dataset.train, 128, seed=0, epochs=10)
            model.fit(task.weigh_classes(batches, dataset.train), epochs=10)
            ```

        The weights multiply the sample weights that there are. They are meant for the training
        loss alone: validation and test keep the examples as they are.

        Args:
            batches: a `tf.data.Dataset` of (inputs, targets) or (inputs, targets, weights).
            train: the train split: "balanced" counts its labels, and no others.

        Returns:
            A `tf.data.Dataset` of (inputs, targets, weights); the batches themselves for a task
            without class weights.

        Raises:
            UsageError: a class is not known.
        """
        if self.class_weights is None:
            return batches
        place = self._weighted_place()
        head, table = self.heads[place], self._class_table(train)

        def weigh(inputs: Any, targets: Any, weights: Any = None) -> tuple[Any, Any, Any]:
            own = self.weights(weights)
            factors = _looked_up(head, self.targets(targets)[place], table)
            given = own[place]
            own[place] = factors if given is None else factors * _spread(given, factors)
            if len(self.heads) == 1:
                return inputs, targets, own[0]
            count = ops.shape(leaves(inputs)[0])[0]
            filled = [ops.ones((count,), "float32") if each is None else each for each in own]
            return inputs, targets, _like(targets, filled, self.ends.names)

        return batches.map(weigh)

    def _nested(self, flat: Sequence[Any]) -> Any:
        inner = self.ends.structure
        inner = inner.values() if isinstance(inner, dict) else inner
        if any(not isinstance(each, int) for each in inner):
            raise UsageError(
                f"{self.ends.where} nests its outputs in several levels: build it with a list or a "
                "dict of outputs"
            )
        return _refill(self.ends.structure, flat)

    def _weighted_place(self) -> int:
        places = [place for place, head in enumerate(self.heads) if head.has_classes]
        if len(places) != 1:
            raise UsageError(
                f"class_weights need one output with one class an example, and {self.ends.where} "
                f"has {len(places)}: leave them out, or give sample weights"
            )
        return places[0]

    def _class_table(self, train: Split) -> np.ndarray:
        """The weight of each class, float32 `(classes,)`."""
        place = self._weighted_place()
        head = self.heads[place]
        if self.class_weights == "balanced":
            counts = np.zeros(head.classes, np.int64)
            for numbers in _all_classes(self, place, train):
                kept = numbers[(numbers >= 0) & (numbers < head.classes)]
                counts += np.bincount(kept, minlength=head.classes)
            present = counts > 0
            table = np.zeros(head.classes)
            table[present] = counts.sum() / (present.sum() * counts[present])
            return table.astype(np.float32)
        table = np.ones(head.classes, np.float32)
        assert isinstance(self.class_weights, dict)
        known = {name: number for number, name in enumerate(self.classes)}
        known |= {str(number): number for number in range(head.classes)}
        for name, weight in self.class_weights.items():
            if name not in known:
                raise UsageError(f"class_weights.{name} is unknown: {did_you_mean(name, known)}")
            table[known[name]] = weight
        return table

    def _check_weights(self, split: Split, where: str) -> None:
        if len(split.element_spec) < 3:
            return
        sample = some_of(split)
        for head, weights in zip(self.heads, self.weights(sample.weights), strict=True):
            check_weights(head, np.asarray(weights), where)

    def _try(self, dataset: Dataset) -> None:
        """Computes losses and metrics once, on outputs made up, before any epoch."""
        if all(head.is_plain_classification and is_usual(head) for head in self.heads):
            return
        sample = some_of(dataset.train)[:_TRIED]
        given = zip(
            self.heads, self.targets(sample.targets), self.weights(sample.weights), strict=True
        )
        rng = np.random.default_rng(0)
        for head, target, weight in given:
            sizes = np.shape(target)
            shape = [
                size or (sizes[axis + 1] if axis + 1 < len(sizes) else 1)
                for axis, size in enumerate(head.output.shape)
            ]
            outputs = rng.uniform(0.2, 0.8, (len(target), *shape)).astype(np.float32)
            try_head(head, np.asarray(target), outputs, weight)


def _check_keys(ends: Ends) -> None:
    """Refuses outputs in a dict that older versions of Keras cannot pair with their targets."""
    renamed = [each for each in ends.outputs if each.name != each.keras_name]
    if isinstance(ends.structure, dict) and renamed and Version(keras.__version__) < _BY_KEYS:
        first = renamed[0]
        raise UsageError(
            f"{ends.where}: Keras {keras.__version__} knows the output {first.name!r} as "
            f"{first.keras_name!r} alone: give the layer that makes it the name {first.name!r}, or "
            f"install Keras {_BY_KEYS} or newer"
        )


def _all_classes(task: Task, place: int, train: Split) -> Any:
    """The class numbers of the train split, part by part."""
    head = task.heads[place]
    if len(task.heads) == 1 and (labels := train.labels) is not None:
        yield labels
        return
    for _, targets, *_ in train.ordered(1024).as_numpy_iterator():
        numbers = class_numbers(head, np.asarray(task.targets(targets)[place]))
        yield numbers.reshape(-1)


def _looked_up(head: Head, targets: Any, table: np.ndarray) -> Any:
    """The weight of each target's class."""
    if head.labels == ONE_HOT:
        numbers = ops.argmax(targets, axis=-1)
    else:
        numbers = ops.cast(targets, "int32")
        shape = numbers.shape
        if len(shape) > 1 and shape[-1] == 1 and len(shape) > len(head.output.shape):
            numbers = ops.squeeze(numbers, axis=-1)
    # The number of an ignored class may lie outside; the loss ignores its weight as well.
    return ops.take(ops.convert_to_tensor(table), ops.clip(numbers, 0, len(table) - 1), axis=0)


def _spread(weights: Any, factors: Any) -> Any:
    weights = ops.cast(weights, "float32")
    while len(weights.shape) < len(factors.shape):
        weights = ops.expand_dims(weights, -1)
    return weights


def _like(targets: Tree, flat: list[Any], names: list[str]) -> Tree:
    """One array for each output, nested as the targets are."""
    if isinstance(targets, dict):
        return dict(zip(names if set(names) == set(targets) else targets, flat, strict=True))
    parts = iter(flat)
    return mapped(lambda _: next(parts), targets)


def _refill(structure: Any, flat: Sequence[Any]) -> Any:
    """What stands in `flat` at the numbers of a nested structure."""
    if isinstance(structure, dict):
        return {key: _refill(value, flat) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [_refill(value, flat) for value in structure]
    return flat[structure]
