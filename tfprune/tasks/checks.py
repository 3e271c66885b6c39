"""Checks of targets, losses and metrics before the first epoch."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfprune import figures
from tfprune.data.splits import Examples, RandomAccess, Split, Tree, leaves
from tfprune.errors import UsageError, one_line
from tfprune.tasks.heads import (
    ONE_HOT,
    Head,
    loss_name,
)

if TYPE_CHECKING:
    from tfprune.data import Dataset


# Examples that are looked at where targets cannot be looked at as a whole, and their bytes.
_SAMPLE = 256
_SAMPLE_BYTES = 1 << 26

# Examples a class: fewer lack some class by chance.
_FEW = 5
_OPEN = 64


def some_of(split: Split) -> Examples:
    """A few examples: up to 256, evenly spread; of a stream its first ones."""
    count = max(1, min(_SAMPLE, _SAMPLE_BYTES // example_bytes(split), len(split)))
    if isinstance(split, RandomAccess):
        return split.sample(count)
    return Examples(*next(split.ordered(count).as_numpy_iterator()))


def example_bytes(examples: Split | Examples) -> int:
    """About the bytes of one example; an open size counts as 64."""
    if isinstance(examples, Examples):
        arrays = [np.asarray(leaf) for tree in examples[:1].given for leaf in leaves(tree)]
        return max(1, sum(array.nbytes for array in arrays))
    specs = [leaf for tree in examples.element_spec for leaf in leaves(tree)]
    return max(1, sum(_spec_bytes(spec) for spec in specs))


def _spec_bytes(spec: Any) -> int:
    sizes = [_OPEN] * 3 if spec.shape.rank is None else [n or _OPEN for n in spec.shape]
    return math.prod(sizes) * int(spec.dtype.size)


def splits(dataset: Dataset) -> list[tuple[str, Split]]:
    """The splits that have examples, by name.

    Raises:
        UsageError: there is nothing to train on or to choose by.
    """
    parts = (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    for part, split in parts:
        if part != "test" and not len(split):
            raise UsageError(f"{dataset.name} has no example in its {part} split: give more data")
    return [(part, split) for part, split in parts if len(split)]


def target_values(
    heads: Sequence[Head], targets: Callable[[Tree], list[Any]], split: Split, where: str
) -> list[np.ndarray]:
    """The targets of a split by heads: all of them where they are in memory, else a sample."""
    if len(heads) == 1 and (labels := split.labels) is not None:
        return [labels]
    tree = getattr(split, "targets", None)
    # Masks stay in their files.
    if tree is None or not all(isinstance(leaf, np.ndarray) for leaf in leaves(tree)):
        if len(split.element_spec) < 2:
            raise UsageError(f"{where} has no targets: give data with what the model should answer")
        tree = some_of(split).targets
    return [np.asarray(values) for values in targets(tree)]


def check_values(head: Head, values: np.ndarray, where: str) -> None:
    """Checks targets against their head.

    Args:
        head: the output.
        values: shape `(n, ...)`.
        where: what messages call the data.

    Raises:
        UsageError: a number is not finite, or is not a class.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UsageError(f"{where} has targets that are NaN or infinite: remove these examples")
    if values.dtype.kind not in "iubf":
        raise UsageError(f"{where} has targets of dtype {values.dtype}: give numbers")
    if not values.size or head.kind in (None, "regression"):
        return
    if head.kind == "multi-label" or head.labels == ONE_HOT:
        if values.min() < 0 or values.max() > 1:
            raise UsageError(
                f"{where} has targets from {values.min():g} to {values.max():g}, and {head.kind} "
                "needs 0 to 1 for each class: give such targets"
            )
        return
    kept = values if head.ignore_class is None else values[values != head.ignore_class]
    if kept.size and not 0 <= kept.min() <= kept.max() < head.classes:
        raise UsageError(
            f"{where} has labels from {kept.min():g} to {kept.max():g}, and {head.where} has "
            f"{head.classes} classes: give data whose labels are 0 to {head.classes - 1}"
        )


def check_weights(head: Head, weights: np.ndarray, where: str) -> None:
    """Checks sample weights against their head.

    Keras multiplies losses by weights even where their shapes fit by chance only.

    Args:
        head: the output.
        weights: shape `(n, ...)`.
        where: what messages call the data.

    Raises:
        UsageError: a weight is negative or not finite, or there is not one for each example (or
            step, or pixel).
    """
    if weights.dtype.kind not in "iubf" or not np.isfinite(weights).all() or (weights < 0).any():
        raise UsageError(f"{where} has sample weights that are negative or not finite numbers")
    wanted = head.output.shape[:-1]
    if head.kind is None or (not wanted and weights.ndim == 1):
        return
    if weights.ndim != len(wanted) + 1 or any(
        size not in (None, got) for size, got in zip(wanted, weights.shape[1:], strict=True)
    ):
        each = "an example" if not wanted else f"for each of the {wanted} places of an example"
        raise UsageError(
            f"{where} has sample weights of shape {weights.shape[1:]} an example, and "
            f"{head.where} needs one {each}: repeat them"
        )


def class_numbers(head: Head, values: np.ndarray) -> np.ndarray:
    """The class of each example or pixel, int64, from targets in either form."""
    if head.labels == ONE_HOT:
        return np.asarray(values).argmax(axis=-1)
    if values.ndim > 1 and values.shape[-1] == 1 and values.ndim > len(head.output.shape):
        values = values[..., 0]
    return values.astype(np.int64, copy=False)


def check_class_count(head: Head, dataset: Dataset) -> None:
    """Checks that there is an output for each class."""
    if (head.output.channels or 0) < len(dataset.classes):
        raise UsageError(
            f"{head.where} gives {head.output.channels} outputs, and {dataset.name} has "
            f"{len(dataset.classes)} classes: build it with one output for each class"
        )


def check_classes(
    head: Head,
    numbers: np.ndarray,
    part: str,
    where: str,
    trained: set[int],
    names: tuple[str, ...],
) -> None:
    """Checks that there are two classes to tell apart, and warns of those that a split lacks.

    Args:
        head: the output.
        numbers: the classes of the examples, int64.
        part: "train", "validation" or "test".
        where: what messages call the split.
        trained: the classes of the train split; it is filled when that is checked.
        names: the names of the classes.
    """
    present = set(np.unique(numbers).tolist())
    if part == "train":
        if len(present) == 1:
            raise UsageError(
                f"{where} has a single class, {_called(present, names)}: give data of two or more"
            )
        trained |= present
        wanted = set(range(len(names)))
    else:
        wanted = trained
        if unknown := present - trained:
            _warn(f"{where} has classes that the train split lacks: {_called(unknown, names)}")
    # A handful of examples lacks some class by chance.
    if (missing := wanted - present) and len(numbers) >= _FEW * len(wanted):
        _warn(f"{where} has no example of {_called(missing, names)}")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _called(numbers: set[int], names: tuple[str, ...], most: int = 5) -> str:
    shown = [names[n] if n < len(names) else str(n) for n in sorted(numbers)]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def is_usual(head: Head) -> bool:
    """Whether the accuracy is the only metric."""
    return [each.name for each in head.metrics] == [figures.ACCURACY.name]


def try_head(head: Head, target: np.ndarray, outputs: np.ndarray, weight: Any) -> None:
    """Computes the loss and the metrics of a head once.

    Args:
        head: the output.
        target: shape `(n, ...)`.
        outputs: made up, shape `(n, *head.output.shape)`.
        weight: sample weights, or None.

    Raises:
        UsageError: one of them cannot be computed, or is not one number.
    """
    shapes = f"outputs of shape {outputs.shape[1:]} and targets of shape {target.shape[1:]}"
    weighed = None if weight is None else np.asarray(weight, np.float32)
    if (loss := head.loss()) is not None:
        name = loss_name(loss)
        value = _tried(
            functools.partial(loss, target, outputs, weighed), f"loss {name!r}", head, shapes
        )
        if np.ndim(value) != 0:
            raise UsageError(
                f"loss {name!r} of {head.where} gives {np.shape(value)}: give one that reduces to "
                'a number, such as with reduction="sum_over_batch_size"'
            )
    for each in head.metrics:
        what = f"metric {each.name!r}"
        metric = each.make(head)

        def compute(metric: keras.Metric = metric) -> Any:
            metric.update_state(target, outputs, weighed)
            return metric.result()

        value = _tried(compute, what, head, shapes)
        if np.ndim(value) != 0:
            raise UsageError(
                f"{what} of {head.where} gives {np.size(value)} numbers: give one that averages "
                'them, such as with average="macro"'
            )
        function = getattr(metric, "_fn", None)
        if function is None or str(function.__module__).startswith("keras.") or len(target) < 2:
            continue
        tensors = [keras.ops.convert_to_tensor(y, "float32") for y in (target, outputs)]
        if np.ndim(np.asarray(function(*tensors))) == 0:
            warnings.warn(
                f"{what} of {head.where} gives one number a batch, so a smaller last batch counts "
                "as much as a full one: return one number an example",
                stacklevel=4,
            )


def _tried(compute: Callable[[], Any], what: str, head: Head, shapes: str) -> Any:
    try:
        return np.asarray(compute())
    except UsageError:
        raise
    # Whatever Keras or a function of one's own raises.
    except Exception as error:
        raise UsageError(
            f"{what} of {head.where} cannot be computed from {shapes} ({one_line(error)}): choose "
            "one that fits them"
        ) from error
