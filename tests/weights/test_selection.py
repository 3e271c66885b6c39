from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.errors import UsageError
from tfprune.weights import prunable, register_prunable
from tfprune.weights.selection import unfinished, unpruned


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
    monkeypatch.setattr("tfprune.weights.selection._REGISTERED", {})

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


class Strange(keras.layers.Layer):
    """A matrix, a bias, a scale that is a matrix only on paper, and a state."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 8), name="w")
        self.b = self.add_weight(shape=(8,), name="b")
        self.scale = self.add_weight(shape=(1, 8), name="scale")
        self.state = self.add_weight(shape=(8, 8), name="state", trainable=False)

    def call(self, x):
        return (x @ self.w + self.b) * self.scale


class Tied(keras.layers.Layer):
    """Holds the kernel of another layer as well."""

    def __init__(self, dense, **options):
        super().__init__(**options)
        self.kernel = dense.kernel

    def call(self, x):
        return x @ keras.ops.transpose(self.kernel)


class Wider(keras.layers.Dense):
    """A known layer with a matrix of its own."""

    def build(self, shape):
        super().build(shape)
        self.more = self.add_weight(shape=(shape[-1], self.units), name="more")


def _model(*stack):
    return keras.Sequential([keras.Input((6,)), *stack], name="all")


def _unpruned(model, **picks):
    return [(each.paths, each.size) for each in unpruned(model, **picks)]


def test_what_stays_dense_unasked_is_found_with_its_size_and_what_to_do():
    frozen = _model(keras.layers.Dense(8, name="deep"), Strange(name="odd"))
    frozen.trainable = False
    frozen.name = "frozen"
    model = _model(
        keras.layers.BatchNormalization(),
        Strange(name="one"),
        keras.layers.PReLU(),
        Wider(6, name="wide"),
        frozen,
        keras.layers.Dense(2, name="head"),
    )
    strange, cold = unpruned(model)
    assert (strange.paths, strange.size) == (["one", "wide"], 6 * 8 + 8 * 6)
    assert "register_prunable(Strange, 'w')" in strange.reason
    assert (cold.paths, cold.size) == (["frozen/deep", "frozen/odd"], 6 * 8 + 8 * 8)
    assert "trainable=True" in cold.reason


@pytest.mark.parametrize(
    ("picks", "found"),
    [
        ({"exclude": "one"}, []),
        ({"exclude": lambda layer: isinstance(layer, Strange)}, []),
        ({"include": "head"}, []),
        ({"include": ["head", "one"]}, [(["one"], 48)]),
    ],
)
def test_what_was_left_out_on_purpose_is_not_found(picks, found):
    model = _model(Strange(name="one"), keras.layers.Dense(2, name="head"))
    assert _unpruned(model, **picks) == found


def test_a_tied_kernel_and_a_registered_layer_are_not_found():
    dense = keras.layers.Dense(6, name="dense")
    dense.build((None, 6))
    assert _unpruned(_model(Tied(dense, name="tied"), dense)) == []

    class Registered(Strange):
        pass

    register_prunable(Registered)
    assert _unpruned(_model(Registered(), keras.layers.Dense(2))) == []


def test_the_weights_of_a_model_itself_are_found():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = keras.layers.Dense(3)

        def build(self, shape):
            self.w = self.add_weight(shape=(6, 5), name="w")
            self.dense.build((None, 5))

        def call(self, x):
            return self.dense(x @ self.w)

    model = Own()
    model(np.zeros((1, 6), np.float32))
    assert _unpruned(model) == [(["own"], 30)]


@pytest.mark.filterwarnings("ignore:.build.* was called")
def test_a_layer_that_is_not_built_is_found():
    class Late(keras.Model):
        def __init__(self):
            super().__init__(name="late")
            self.one, self.two = (
                keras.layers.Dense(3, name="one"),
                keras.layers.Dense(3, name="two"),
            )
            self.drop = keras.layers.Dropout(0.1)

        def call(self, x):
            return self.one(x)

    model = Late()
    model(np.zeros((1, 6), np.float32))
    assert _unpruned(model) == [(["two"], 0)]
    assert unfinished(model)
    assert not unfinished(model, exclude="two")
    assert not unfinished(_model(keras.layers.Dense(3)))
