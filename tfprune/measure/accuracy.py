"""How good a model's answers are, and how alike two models answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from tfprune.errors import UsageError
from tfprune.measure.interface import Runtime

# Keras clips probabilities here too, so that one sure mistake does not cost infinity.
_FLOOR = 1e-7


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One pass over labelled images.

    Attributes:
        accuracy: Share of images whose largest output is the label, 0 to 1.
        loss: Mean cross-entropy in nats.
        seconds: Wall-clock time of running the images, without loading the model.
        images: Number of images.
        per_class: The accuracy among the images of each class, by class number; None for a class
            that has no image.
        class_images: Number of images of each class.
    """

    accuracy: float
    loss: float
    seconds: float
    images: int
    per_class: tuple[float | None, ...] = ()
    class_images: tuple[int, ...] = ()


def evaluate(
    runtime: Runtime,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Runs labelled images through a model.

    Args:
        runtime: What `load` returned.
        images: Pixels 0..255, shape `(n, h, w, c)`.
        labels: Class numbers, shape `(n,)` or `(n, 1)`.
        batch_size: Images in one batch at most.
        progress: Told after each batch how many images it had; maybe from another thread.

    Returns:
        Accuracy, in all and of each class, loss and the time it took.

    Raises:
        UsageError: Images and labels do not fit each other or the model.
    """
    labels = np.asarray(labels)
    if labels.shape not in {(len(images),), (len(images), 1)} or labels.dtype.kind not in "iu":
        raise UsageError(
            f"labels of shape {labels.shape} and dtype {labels.dtype} do not fit "
            f"{len(images)} images: give one class number an image"
        )
    start = time.perf_counter()
    outputs = runtime.predict(images, batch_size, progress)
    seconds = time.perf_counter() - start
    labels = labels.reshape(-1)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UsageError(
            f"{runtime.name} gives outputs of shape {outputs.shape[1:]} an image: "
            "accuracy needs one output a class"
        )
    if labels.min() < 0 or labels.max() >= outputs.shape[1]:
        raise UsageError(
            f"labels reach from {labels.min()} to {labels.max()}, but {runtime.name} knows "
            f"{outputs.shape[1]} classes: check that data and model belong together"
        )
    right = outputs.argmax(axis=1) == labels
    classes = outputs.shape[1]
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[right], minlength=classes)
    return Evaluation(
        accuracy=float(np.mean(right)),
        loss=cross_entropy(outputs, labels, runtime.output_step),
        seconds=seconds,
        images=len(labels),
        per_class=tuple(
            float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)
        ),
        class_images=tuple(counts.tolist()),
    )


def cross_entropy(outputs: np.ndarray, labels: np.ndarray, output_step: float = 0.0) -> float:
    """Mean cross-entropy of logits or probabilities, whichever the outputs are.

    They count as probabilities when every row is non-negative and sums to one, within what
    rounding each entry to `output_step` can add up to.

    Args:
        outputs: Shape `(n, classes)`.
        labels: Class numbers, shape `(n,)`.
        output_step: Distance of two neighbouring outputs, 0.0 for float outputs.

    Returns:
        Nats; no image costs more than `-log(1e-7)`, about 16.1.
    """
    outputs = np.asarray(outputs, np.float64)
    tolerance = 1e-3 + outputs.shape[1] * output_step / 2
    sums = outputs.sum(axis=1)
    if (outputs >= 0).all() and (np.abs(sums - 1) <= tolerance).all():
        likelihood = outputs[np.arange(len(labels)), labels]
    else:
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        likelihood = powers[np.arange(len(labels)), labels] / powers.sum(axis=1)
    return float(-np.log(np.clip(likelihood, _FLOOR, 1.0)).mean())


def agreement(outputs_a: np.ndarray, outputs_b: np.ndarray) -> tuple[float, float]:
    """Compares two models' outputs on the same images.

    Args:
        outputs_a: Shape `(n, classes)`.
        outputs_b: Same shape.

    Returns:
        The share of images with the same largest output, 0 to 1, and the largest absolute
        difference of any output.

    Raises:
        UsageError: The shapes differ.
    """
    a, b = np.asarray(outputs_a), np.asarray(outputs_b)
    if a.shape != b.shape:
        raise UsageError(f"outputs of shapes {a.shape} and {b.shape} cannot be compared")
    same = float(np.mean(a.argmax(axis=-1) == b.argmax(axis=-1)))
    return same, float(np.abs(a.astype(np.float64) - b).max())
