from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.model.cloning import copy
from tfprune.model.graph import calls, named_layers


def test_importing_tfprune_imports_neither_keras_nor_tensorflow() -> None:
    code = "import sys, tfprune; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_resolves() -> None:
    assert dir(tfprune) == tfprune.__all__
    for name in tfprune.__all__:
        assert getattr(tfprune, name) is not None
    with pytest.raises(AttributeError, match="No tfprune attribute prune"):
        tfprune.prune  # noqa: B018


def single(layer: layers.Layer, *shape: int) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layer])


def test_calls_come_producers_first() -> None:
    x = keras.Input((4,))
    a = layers.Dense(4)(x)
    model = keras.Model(x, layers.Add()([layers.Dense(4)(layers.Dense(4)(a)), a + 1]))
    known = {id(tensor) for tensor in model.inputs}
    count = 0
    for call in calls(model):
        assert {id(tensor) for tensor in call.inputs} <= known
        known |= {id(tensor) for tensor in call.outputs}
        count += 1
    assert count == 5


def test_layers_are_named_by_their_path() -> None:
    deep = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="leaf")], name="deep")
    outer = keras.Sequential([keras.Input((4,)), deep, layers.Dense(2, name="top")], name="outer")
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.ReLU(name="last")(outer(x)))
    assert list(named_layers(model)) == ["x", "outer/deep/leaf", "outer/top", "last"]


def test_a_copy_has_variables_of_its_own() -> None:
    model = single(layers.Dense(3), 4)
    before = model.get_weights()
    twin = copy(model)
    for variable, old in zip(twin.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)
        variable.assign(old + 1)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert not twin.compiled
