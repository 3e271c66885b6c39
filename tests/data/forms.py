"""The same examples in every form that data may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import Arrays, Dataset, Examples, Stream

BATCH = 16


class Batches(keras.utils.PyDataset):
    """Batches by their number, as Keras' own worker processes ask for them."""

    def __init__(self, *trees: Any, batch: int = BATCH) -> None:
        super().__init__()
        self.trees, self.batch = trees, batch

    def __len__(self) -> int:
        return -(-len(keras.tree.flatten(self.trees)[0]) // self.batch)

    def __getitem__(self, index: int) -> Any:
        return rows_of(self.trees, slice(index * self.batch, (index + 1) * self.batch))


def rows_of(trees: tuple[Any, ...], rows: Any) -> tuple[Any, ...]:
    return tuple(keras.tree.map_structure(lambda leaf: leaf[rows], tree) for tree in trees)


def as_generator(*trees: Any) -> Iterator[Any]:
    for index in range(len(batches := Batches(*trees))):
        yield batches[index]


def as_stream(*trees: Any) -> Stream:
    dataset = tf.data.Dataset.from_tensor_slices(trees)
    return Stream(lambda seed, epoch: dataset, len(dataset), dataset.element_spec)


def as_dataset(*trees: Any) -> Dataset:
    split = Arrays(*trees)
    return Dataset("mine", (), split, split.select(np.arange(1)), split.select(np.arange(1)), "")


FORMS: dict[str, Callable[..., Any]] = {
    "arrays": lambda *trees: trees,
    "tensors": lambda *trees: keras.tree.map_structure(tf.constant, trees),
    "tf.data": lambda *trees: tf.data.Dataset.from_tensor_slices(trees).batch(BATCH),
    "PyDataset": Batches,
    "generator": as_generator,
    "list of batches": lambda *trees: list(as_generator(*trees)),
    "examples": Examples,
    "split": Arrays,
    "stream": as_stream,
    "data set": as_dataset,
}
