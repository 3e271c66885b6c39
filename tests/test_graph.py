from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.cloning import copy
from tfprune.graph import calls, kernel_uses, named_layers


def test_importing_tfprune_imports_neither_keras_nor_tensorflow() -> None:
    code = "import sys, tfprune; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_resolves() -> None:
    assert dir(tfprune) == tfprune.__all__
    for name in tfprune.__all__:
        assert getattr(tfprune, name) is not None
    with pytest.raises(AttributeError, match="module 'tfprune' has no attribute 'prune'"):
        tfprune.prune  # noqa: B018


def single(layer: layers.Layer, *shape: int) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layer])


def attending(attention: layers.Layer) -> keras.Model:
    """Six steps look at five."""
    query, value = keras.Input((6, 4)), keras.Input((5, 4))
    return keras.Model([query, value], attention(query, value))


# The count by hand: outputs times what each of them sums up.
MACS = {
    "dense": (lambda: single(layers.Dense(3), 4), 4 * 3),
    "dense on maps": (lambda: single(layers.Dense(3), 5, 6, 4), 5 * 6 * 4 * 3),
    "conv1d": (lambda: single(layers.Conv1D(5, 3), 8, 2), 6 * 5 * 3 * 2),
    "conv2d": (lambda: single(layers.Conv2D(5, 3), 8, 8, 2), 6 * 6 * 5 * 9 * 2),
    "conv2d same, strides": (
        lambda: single(layers.Conv2D(5, 3, strides=2, padding="same"), 8, 8, 2),
        4 * 4 * 5 * 9 * 2,
    ),
    "conv2d in groups": (lambda: single(layers.Conv2D(4, 1, groups=2), 3, 3, 4), 9 * 4 * 2),
    "conv3d": (lambda: single(layers.Conv3D(5, 2), 3, 3, 3, 2), 8 * 5 * 8 * 2),
    "depthwise": (
        lambda: single(layers.DepthwiseConv2D(3, depth_multiplier=2), 8, 8, 4),
        36 * 9 * 4 * 2,
    ),
    "depthwise 1d": (lambda: single(layers.DepthwiseConv1D(3), 8, 4), 6 * 3 * 4),
    "separable": (
        lambda: single(layers.SeparableConv2D(5, 3), 8, 8, 4),
        36 * 9 * 4 + 36 * 4 * 5,
    ),
    "transposed": (
        lambda: single(layers.Conv2DTranspose(5, 2, strides=2), 3, 3, 4),
        9 * 4 * 4 * 5,
    ),
    "channels first": (
        lambda: single(layers.Conv2D(5, 3, data_format="channels_first"), 2, 8, 8),
        6 * 6 * 5 * 9 * 2,
    ),
    "depthwise in groups": (lambda: single(layers.Conv2D(8, 3, groups=4), 8, 8, 4), 36 * 9 * 8),
    "separable 1d, multiplier": (
        lambda: single(layers.SeparableConv1D(5, 3, depth_multiplier=2), 8, 4),
        6 * 3 * 4 * 2 + 6 * 8 * 5,
    ),
    "transposed 1d": (lambda: single(layers.Conv1DTranspose(5, 2), 3, 4), 3 * 2 * 4 * 5),
    "transposed 3d": (lambda: single(layers.Conv3DTranspose(5, 2), 2, 2, 2, 3), 8 * 8 * 3 * 5),
    "simple rnn": (lambda: single(layers.SimpleRNN(5), 6, 4), 6 * (4 * 5 + 5 * 5)),
    "gru": (lambda: single(layers.GRU(5), 6, 4), 6 * 3 * (4 * 5 + 5 * 5)),
    "lstm": (lambda: single(layers.LSTM(5), 6, 4), 6 * 4 * (4 * 5 + 5 * 5)),
    "lstm both ways": (
        lambda: single(layers.Bidirectional(layers.LSTM(5)), 6, 4),
        2 * 6 * 4 * (4 * 5 + 5 * 5),
    ),
    "convolutional lstm": (
        lambda: single(layers.ConvLSTM2D(5, 3, return_sequences=True), 6, 8, 8, 4),
        6 * 36 * 4 * 9 * (4 * 5 + 5 * 5),
    ),
    "at every step": (
        lambda: single(layers.TimeDistributed(layers.Conv2D(5, 3)), 6, 8, 8, 4),
        6 * 36 * 9 * 4 * 5,
    ),
    "nothing at every step": (lambda: single(layers.TimeDistributed(layers.ReLU()), 6, 4), 0),
    "einsum": (lambda: single(layers.EinsumDense("btc,cde->btde", (6, 2, 3)), 6, 4), 6 * 4 * 6),
    "einsum, ellipsis": (
        lambda: single(layers.EinsumDense("...c,cd->...d", 3), 5, 6, 4),
        5 * 6 * 4 * 3,
    ),
    "attention": (
        lambda: attending(layers.MultiHeadAttention(2, 3)),
        6 * 4 * 6 * 2 + 5 * 4 * 6 * 2,
    ),
    "grouped attention": (
        lambda: attending(layers.GroupQueryAttention(3, 4, 2)),
        6 * 4 * 12 * 2 + 5 * 4 * 6 * 2,
    ),
    "embedding": (lambda: single(layers.Embedding(9, 4), 6), 0),
    "no kernel": (lambda: single(layers.BatchNormalization(), 8, 8, 4), 0),
}


@pytest.mark.parametrize("case", MACS)
def test_macs(case: str) -> None:
    build, wanted = MACS[case]
    assert tfprune.macs(build()) == wanted


def test_macs_count_every_call_of_shared_and_nested_layers() -> None:
    inner = single(layers.Dense(4), 4)
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(inner(inner(x))))
    assert tfprune.macs(model) == 2 * 16 + 8
    assert len(kernel_uses(model)) == 3


def test_macs_of_an_open_size() -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.macs(single(layers.Conv2D(2, 1), None, None, 3))
    assert str(error.value) == (
        "the tensor shape (None, None, None, 2) is open, so its multiply-accumulates cannot be "
        "counted: give the model's Input a fixed shape"
    )


def test_calls_come_producers_first() -> None:
    x = keras.Input((4,))
    a = layers.Dense(4)(x)
    model = keras.Model(x, layers.Add()([layers.Dense(4)(layers.Dense(4)(a)), a + 1]))
    known = {id(each) for each in model.inputs}
    count = 0
    for call in calls(model):
        assert {id(each) for each in call.inputs} <= known
        known |= {id(each) for each in call.outputs}
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
