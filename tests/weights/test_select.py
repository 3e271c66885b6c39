from __future__ import annotations

import keras
import pytest
from keras import layers

from tfprune.errors import UsageError
from tfprune.weights import prunable, register_prunable
from tfprune.weights.select import _PRUNABLE


def names(model, **picks):
    return [f"{path}/{variable.name}" for path, variable in prunable(model, **picks)]


IMAGE, SERIES, FILM = (8, 8, 4), (8, 4), (3, 6, 6, 1)


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        (SERIES, layers.Conv1D(2, 3), ["x/kernel"]),
        (IMAGE, layers.Conv2D(2, 3), ["x/kernel"]),
        (FILM, layers.Conv3D(2, 2), ["x/kernel"]),
        (IMAGE, layers.Conv2DTranspose(2, 3), ["x/kernel"]),
        (IMAGE, layers.DepthwiseConv2D(3), ["x/kernel"]),
        (IMAGE, layers.SeparableConv2D(2, 3), ["x/depthwise_kernel", "x/pointwise_kernel"]),
        (IMAGE, layers.Dense(2), ["x/kernel"]),
        (SERIES, layers.EinsumDense("bsf,fu->bsu", (8, 2)), ["x/kernel"]),
        (SERIES, layers.LSTM(2), ["x/lstm_cell/kernel", "x/lstm_cell/recurrent_kernel"]),
        (SERIES, layers.GRU(2), ["x/gru_cell/kernel", "x/gru_cell/recurrent_kernel"]),
        (FILM, layers.ConvLSTM2D(2, 3), ["x/kernel", "x/recurrent_kernel"]),
        (SERIES, layers.TimeDistributed(layers.Dense(2, name="in")), ["x/in/kernel"]),
        (IMAGE, layers.SpectralNormalization(layers.Conv2D(2, 3, name="in")), ["x/in/kernel"]),
        ((5,), layers.Embedding(9, 2), ["x/embeddings"]),
        (IMAGE, layers.BatchNormalization(), []),
        (IMAGE, layers.GroupNormalization(2), []),
        (IMAGE, layers.PReLU(), []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_kernels_are_prunable_and_nothing_else_is(shape, layer, expected):
    layer.name = "x"
    assert names(keras.Sequential([keras.Input(shape), layer])) == expected


def test_attention_shows_its_projections():
    series = keras.Input(SERIES)
    model = keras.Model(series, layers.MultiHeadAttention(2, 3, name="att")(series, series))
    parts = ["query", "key", "value", "attention_output"]
    assert names(model) == [f"att/{part}/kernel" for part in parts]


def test_nested_models_are_walked_and_shared_layers_come_once():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")], name="inner")
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(inner(shared(inner(inputs)))))
    assert sorted(names(model)) == ["inner/deep/kernel", "shared/kernel"]


@pytest.fixture
def nested():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(3, name="b")], name="inner"
    )
    norm = layers.BatchNormalization(name="norm")
    return keras.Sequential([keras.Input((4,)), inner, norm, layers.Dense(2, name="head")])


@pytest.mark.parametrize(
    ("picks", "expected"),
    [
        ({"include": "head"}, ["head"]),
        ({"include": ["a", "head"]}, ["inner/a", "head"]),
        ({"include": "inner"}, ["inner/a", "inner/b"]),
        ({"include": "inner/b"}, ["inner/b"]),
        ({"include": lambda layer: layer.units > 2}, ["inner/a", "inner/b"]),
        ({"include": []}, []),
        ({"exclude": "inner"}, ["head"]),
        ({"exclude": ["norm", lambda layer: layer.name == "a"]}, ["inner/b", "head"]),
        ({"include": "inner", "exclude": "a"}, ["inner/b"]),
    ],
)
def test_include_and_exclude_pick_layers(nested, picks, expected):
    assert names(nested, **picks) == [f"{path}/kernel" for path in expected]


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ({"include": "haed"}, r"include: .* no layer 'haed': did you mean 'head'\?"),
        ({"exclude": ["a", "inner/bb"]}, r"exclude: .* did you mean 'inner/b'\?"),
        ({"include": "norm"}, r"'norm' has no kernel"),
    ],
)
def test_a_name_that_picks_nothing_is_a_usage_error(nested, picks, message):
    with pytest.raises(UsageError, match=message):
        prunable(nested, **picks)


def test_a_new_layer_type_can_be_registered(monkeypatch):
    monkeypatch.setattr("tfprune.weights.select._PRUNABLE", dict(_PRUNABLE))

    class Scale(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), name="factor")

        def call(self, x):
            return x * self.factor

    class Quiet(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((4,)), Scale(name="s"), Quiet(2, name="q")])
    assert names(model) == ["q/kernel"]
    register_prunable(Scale, "factor")
    register_prunable(Quiet)
    assert names(model) == ["s/factor"]


def test_integer_kernels_are_left_out():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="q"), layers.Dense(2)])
    model.layers[0].quantize("int8")
    assert [path for path, _ in prunable(model)] == [model.layers[1].name]
