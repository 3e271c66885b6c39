"""Arrays in files are read as they are needed, and give what arrays in memory give."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune import data
from tfprune.data.memory_maps import MappedArrays, held

X = np.random.default_rng(0).normal(size=(30, 2, 3)).astype(np.float32)
Y = np.arange(30)


@pytest.fixture
def in_files(tmp_path) -> MappedArrays:
    for name, array in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", array)
    x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    split = held(({"left": x, "right": X[:, 0]}, y))
    assert isinstance(split, MappedArrays)
    return split


def test_batches_are_those_of_arrays(in_files):
    in_memory = held(({"left": X, "right": X[:, 0]}, Y))
    assert isinstance(in_memory, data.Arrays)
    rows = np.array([7, 3, 29, 0, 3])
    for ours, theirs in (
        (in_files, in_memory),
        (in_files.select(rows), in_memory.select(rows)),
        (in_files.select(np.arange(20)).select(rows[:2]), in_memory.select(rows[:2])),
    ):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.element_spec == theirs.element_spec
        for split_batches in (
            lambda split: split.ordered(4),
            lambda split: split.shuffled(4, seed=5, first_epoch=1, epochs=3),
        ):
            pairs = zip(split_batches(ours), split_batches(theirs), strict=True)
            for (x, y), (also_x, also_y) in pairs:
                np.testing.assert_array_equal(x["left"], also_x["left"])
                np.testing.assert_array_equal(x["right"], also_x["right"])
                np.testing.assert_array_equal(y, also_y)


def test_a_selection_copies_nothing(in_files):
    some = in_files.select(np.arange(5))
    assert all(mine is its for mine, its in zip(some._leaves, in_files._leaves, strict=True))


def test_only_class_numbers_are_labels():
    assert MappedArrays((X, Y * 0.5)).labels is None
    assert MappedArrays((X, np.stack([Y, Y], 1))).labels is None
