"""Operators and the files that hold one of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from tfprune.devices.operators import Operator, operator_calls, operator_file
from tfprune.model.counting import macs

from .models import residual


def _work(operator: Operator) -> int:
    read = 1 if operator.kind == "depthwise" else operator.inputs
    pixels, window = np.prod(operator.target), np.prod(operator.window)
    return int(pixels * window * read * operator.outputs)


def test_operators_do_all_multiply_accumulates() -> None:
    model = residual()
    assert sum(_work(use.operator) for use in operator_calls(model)) == macs(model)


def test_nested_and_shared_layers_count_once_a_call() -> None:
    shared = layers.Conv1D(3, 3, padding="same")
    inner = keras.Sequential([keras.Input((9, 3)), shared, shared, layers.Conv1D(3, 3, groups=3)])
    model = keras.Sequential([keras.Input((9, 3)), inner, layers.Dense(2)])
    kinds = [use.operator.kind for use in operator_calls(model)]
    assert kinds == ["conv", "conv", "depthwise", "dense"]


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, groups=2),
        layers.Conv2DTranspose(4, 3),
    ],
)
def test_what_cannot_be_timed_alone_is_left_out(layer: layers.Layer) -> None:
    assert operator_calls(keras.Sequential([keras.Input((6, 6, 2)), layer])) == []


OPERATORS = [
    Operator("conv", (7, 6), (4, 3), 3, 5, window=(3, 2), strides=(2, 2)),
    Operator("conv", (7, 6), (3, 4), 3, 5, window=(3, 2), dilation=(2, 2), same=False),
    Operator("depthwise", (7, 6), (7, 6), 3, 6, window=(3, 3)),
    Operator("dense", (2, 1), (2, 1), 7, 5),
]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.kind)
@pytest.mark.parametrize("int8", [False, True])
def test_a_file_computes_the_operator(operator: Operator, int8: bool) -> None:
    interpreter = Interpreter(model_content=operator_file(operator, int8=int8))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["dtype"] == np.int8) == int8
    interpreter.set_tensor(source["index"], np.ones(source["shape"], source["dtype"]))
    interpreter.invoke()
    y = interpreter.get_tensor(target["index"])
    rows = operator.target[:1] if operator.kind == "dense" else (1, *operator.target)
    assert y.shape == (*rows, operator.outputs)
    # Ones times ones sum to the number of inputs of an output, away from the borders.
    read = 1 if operator.kind == "depthwise" else operator.inputs
    inside = y[0, 1, 1] if y.ndim == 4 else y[0]
    terms = read * np.prod(operator.window)
    np.testing.assert_allclose(inside, np.rint(terms * 0.05) if int8 else terms)
