"""What sparse kernels want is in the file, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from tests.tables import slow
from tfprune import export
from tfprune.formats import load
from tfprune.formats.savedmodel import write_saved_model
from tfprune.formats.tflite_convert import convert
from tfprune.formats.tflite_file import operator_code
from tfprune.formats.tflite_sparse import for_sparse_kernels
from tfprune.weights import prune_once


def net(size: int, padded: bool = False) -> keras.Model:
    """Strided convolutions with zeros on all sides, if the size is odd throughout."""

    def strided(layer: Any, x: Any) -> Any:
        if padded:
            x = layers.ZeroPadding2D(layer.kernel_size[0] // 2)(x)
        layer.padding = "valid" if padded else "same"
        return layer(x)

    x = inputs = keras.Input((size, size, 3))
    x = strided(layers.Conv2D(16, 3, 2), x)
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = strided(layers.DepthwiseConv2D(5, 2), x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 1)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def count_of(content: bytes, number: int) -> int:
    """How many operators of a kind a file has."""
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    codes = [operator_code(model, graph.Operators(i)) for i in range(graph.OperatorsLength())]
    return codes.count(number)


def pads(content: bytes) -> int:
    """How many operators add zeros."""
    return count_of(content, schema.BuiltinOperator.PAD)


def answers(content: bytes, x: np.ndarray, folder: Path) -> np.ndarray:
    path = folder / "net.tflite"
    path.write_bytes(content)
    return load(path).one(x)()


@pytest.mark.parametrize("padded", [False, slow(True)])
@pytest.mark.parametrize(("size", "count"), [(13, 2), slow(15, 1)])
def test_the_same_bits_come_out(size: int, count: int, padded: bool, tmp_path: Path) -> None:
    model = net(size, padded)
    write_saved_model(model, tmp_path / "saved", batch=1)
    plain = convert(tmp_path / "saved", "float32")
    # The converter makes "same" of zeros that mean the same.
    explicit = 2 - count if padded else 0
    assert pads(plain) == explicit
    changed = for_sparse_kernels(plain)
    assert pads(changed) == explicit + count
    x = np.random.default_rng(0).normal(size=(size, size, 3)).astype("float32")
    np.testing.assert_array_equal(answers(changed, x, tmp_path), answers(plain, x, tmp_path))
    assert for_sparse_kernels(changed) == changed


@pytest.mark.parametrize(("size", "kept"), [(6, False), slow(16, True)])
def test_a_pooling_over_one_pixel_is_there_again(size: int, kept: bool, tmp_path: Path) -> None:
    x = inputs = keras.Input((size, size, 3))
    for _ in range(3):
        x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x)
    x = layers.Conv2D(8, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    write_saved_model(model, tmp_path / "saved", batch=1)
    plain = convert(tmp_path / "saved", "float32")
    # The converter leaves a pooling out that changes nothing.
    assert count_of(plain, schema.BuiltinOperator.MEAN) == kept
    changed = for_sparse_kernels(plain)
    assert count_of(changed, schema.BuiltinOperator.MEAN) == 1
    x = np.random.default_rng(0).normal(size=(size, size, 3)).astype("float32")
    np.testing.assert_array_equal(answers(changed, x, tmp_path), answers(plain, x, tmp_path))


def test_sparse_files_have_them_and_others_do_not(tmp_path: Path) -> None:
    model = prune_once(net(13), 0.9)
    plain, sparse = export(model, tmp_path, ["tflite", "tflite-sparse"])
    assert pads(plain.path.read_bytes()) == 0
    assert pads(sparse.path.read_bytes()) == 2
