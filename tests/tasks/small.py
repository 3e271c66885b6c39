"""Tiny models and data for each kind of task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.data import Arrays, Dataset
from tfprune.tasks import TaskSpec

COUNT = 23


def head(size: int, activation: str | None = None) -> keras.Model:
    """A model of four numbers and one output."""
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(size, activation, name="last")], name="net"
    )


def pixels(channels: int, activation: str | None = None) -> keras.Model:
    """A model that gives outputs for each pixel."""
    return keras.Sequential(
        [keras.Input((3, 5, 2)), keras.layers.Conv2D(channels, 1, activation=activation)],
        name="net",
    )


def two_outputs(names: tuple[str, str] = ("sign", "angle")) -> keras.Model:
    """A classification of three classes and a regression, from two inputs."""
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    both = keras.layers.Concatenate()([left, right])
    return keras.Model(
        [left, right],
        [
            keras.layers.Dense(3, name=names[0])(both),
            keras.layers.Dense(1, name=names[1])(both),
        ],
        name="net",
    )


def one_hot(rng: np.random.Generator, shape: tuple[int, ...], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[rng.integers(0, classes, shape)]


Case = tuple[TaskSpec, Callable[[], keras.Model], Callable[[np.random.Generator], Any]]
CASES: dict[str, Case] = {
    "classes, logits": (
        TaskSpec(kind="classification", top=2),
        lambda: head(3),
        lambda rng: rng.integers(0, 3, COUNT),
    ),
    "classes in a column, softmax": (
        TaskSpec(kind="classification"),
        lambda: head(3, "softmax"),
        lambda rng: rng.integers(0, 3, (COUNT, 1)),
    ),
    "one-hot": (
        TaskSpec(kind="classification", top=2),
        lambda: head(3, "softmax"),
        lambda rng: one_hot(rng, (COUNT,), 3),
    ),
    "one sigmoid": (
        TaskSpec(kind="binary"),
        lambda: head(1, "sigmoid"),
        lambda rng: rng.integers(0, 2, COUNT),
    ),
    "one logit": (
        TaskSpec(kind="binary", figure="auc"),
        lambda: head(1),
        lambda rng: rng.integers(0, 2, (COUNT, 1)),
    ),
    "labels, sigmoids": (
        TaskSpec(kind="multi-label", figure="f1_score"),
        lambda: head(4, "sigmoid"),
        lambda rng: rng.integers(0, 2, (COUNT, 4)).astype(np.float32),
    ),
    "labels, logits": (
        TaskSpec(kind="multi-label"),
        lambda: head(4),
        lambda rng: rng.integers(0, 2, (COUNT, 4)),
    ),
    "pixels, softmax": (
        TaskSpec(kind="segmentation", metrics=["mean_iou", "accuracy"]),
        lambda: pixels(3, "softmax"),
        lambda rng: rng.integers(0, 3, (COUNT, 3, 5)),
    ),
    "pixels, logits, a channel of labels": (
        TaskSpec(kind="segmentation"),
        lambda: pixels(3),
        lambda rng: rng.integers(0, 3, (COUNT, 3, 5, 1)).astype(np.uint8),
    ),
    "pixels, one-hot": (
        TaskSpec(kind="segmentation"),
        lambda: pixels(3),
        lambda rng: one_hot(rng, (COUNT, 3, 5), 3),
    ),
    "pixels, one sigmoid": (
        TaskSpec(kind="segmentation"),
        lambda: pixels(1, "sigmoid"),
        lambda rng: rng.integers(0, 2, (COUNT, 3, 5, 1)),
    ),
    "pixels, one logit": (
        TaskSpec(kind="segmentation"),
        lambda: pixels(1),
        lambda rng: rng.integers(0, 2, (COUNT, 3, 5)),
    ),
    "one number": (
        TaskSpec(kind="regression", metrics=["mae", "rmse"], figure="rmse", unit="mm"),
        lambda: head(1),
        lambda rng: rng.normal(size=COUNT).astype(np.float32),
    ),
    "numbers": (
        TaskSpec(kind="regression", figure="r2"),
        lambda: head(3),
        lambda rng: rng.normal(size=(COUNT, 3)).astype(np.float32),
    ),
}


def inputs_of(model: keras.Model, rng: np.random.Generator, count: int = COUNT) -> Any:
    """Inputs of a model, as `fit` takes them."""
    found = tuple(rng.normal(size=(count, *x.shape[1:])).astype(np.float32) for x in model.inputs)
    return found if len(found) > 1 else found[0]


def dataset(
    inputs: Any, targets: Any, weights: Any = None, classes: tuple[str, ...] = ()
) -> Dataset:
    """The same examples in each split."""
    split = Arrays(inputs, targets, weights)
    return Dataset("toys", classes, split, split, split, "toys")
