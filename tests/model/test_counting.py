"""What a model multiplies is counted, or is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

import tfprune
from benchmarks.macs import profiled_macs
from tfprune.measure import layer_table
from tfprune.model.counting import count_macs, kernel_uses


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
        6 * 4 * 6 * 2 + 5 * 4 * 6 * 2 + 2 * 6 * 5 * 6,
    ),
    "grouped attention": (
        lambda: attending(layers.GroupQueryAttention(3, 4, 2)),
        6 * 4 * 12 * 2 + 5 * 4 * 6 * 2 + 2 * 6 * 5 * 12,
    ),
    "self attention": (
        lambda: attended(layers.MultiHeadAttention(2, 3)),
        3 * 4 * 5 * 6 + 4 * 6 * 5 + 2 * 4 * 4 * 6,
    ),
    "attention with other values": (
        lambda: attended(layers.MultiHeadAttention(2, 3, value_dim=5)),
        2 * 4 * 5 * 6 + 4 * 5 * 10 + 4 * 10 * 5 + 4 * 4 * (6 + 10),
    ),
    "attention along one of two axes": (
        lambda: twice_called(layers.MultiHeadAttention(2, 3, attention_axes=(2,)), 3, 4, 5),
        3 * (3 * 4 * 5 * 6 + 4 * 6 * 5 + 2 * 4 * 4 * 6),
    ),
    "einsum of two activations": (
        lambda: raw(lambda x: ops.einsum("btc,bsc->bts", x, x)),
        4 * 4 * 5,
    ),
    "embedding": (lambda: single(layers.Embedding(9, 4), 6), 0),
    "no kernel": (lambda: single(layers.BatchNormalization(), 8, 8, 4), 0),
}


@pytest.mark.reliability("layers whose MACs are counted, or named", "right")
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
        "counted: give input_shape (--input-shape), or a fixed shape to the model's Input"
    )


def test_macs_of_an_open_size_that_is_given() -> None:
    model = single(layers.Conv2D(2, 1), None, None, 3)
    assert tfprune.macs(model, input_shape=(4, 5, 3)) == 4 * 5 * 3 * 2


class Renamed(layers.Conv2D):
    """Computes what its base computes."""

    def __init__(self, *args: Any, tag: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tag = tag

    def build(self, shape: Any) -> None:
        super().build(shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tag": self.tag}


class Standardised(layers.Conv2D):
    """Computes with another kernel than its weight: by weight standardisation."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        kernel = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, kernel)


class Block(layers.Layer):
    """Made of Keras layers and operations."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convs = [layers.Conv2D(width, 3, padding="same", name=f"c{i}") for i in range(2)]

    def build(self, shape: Any) -> None:
        for conv in self.convs:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        self.mix = self.add_weight(shape=(shape[-1], shape[-1]), name="mix")

    def call(self, x: Any) -> Any:
        for conv in self.convs:
            x = ops.relu(conv(x))
        return x @ self.mix

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.convs[-1].filters)


class InTensorFlow(layers.Layer):
    """Its `call` takes no symbolic tensor of Keras."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 4), name="kernel")

    def call(self, x: Any) -> Any:
        return tf.nn.conv2d(x, tf.convert_to_tensor(self.kernel), 1, "SAME")

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 4)


class OwnCell(layers.SimpleRNNCell):
    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        return super().call(2 * x, states)


def image() -> keras.KerasTensor:
    return keras.Input((6, 6, 3))


def cnn() -> keras.Model:
    return keras.Sequential([image(), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])


# Each is counted by TensorFlow's profiler as well, which looks at the traced graph.
COUNTED: dict[str, Callable[[], keras.Model]] = {
    "subclass": lambda: single(Renamed(4, 3), 6, 6, 3),
    "subclass with a convolution of its own": lambda: single(Standardised(4, 3), 6, 6, 3),
    "custom layer": lambda: single(Block(4), 6, 6, 3),
    "custom layer in a custom layer": lambda: keras.Sequential([image(), Block(4), Block(2)]),
    "lambda": lambda: single(layers.Lambda(lambda x: ops.matmul(x, ops.ones((3, 5)))), 6, 3),
    "model at every step": lambda: single(layers.TimeDistributed(cnn()), 5, 6, 6, 3),
    "custom layer at every step": lambda: single(layers.TimeDistributed(Block(2)), 5, 6, 6, 3),
    "spectral normalization": lambda: single(layers.SpectralNormalization(layers.Dense(5)), 4),
    "dot": lambda: twice(layers.Dot(axes=2), 4, 5),
    "dot along the steps": lambda: twice(layers.Dot(axes=1), 4, 5),
    "attention layer": lambda: twice(layers.Attention(), 4, 5),
    "matmul": lambda: raw(lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
    "einsum with a constant": lambda: raw(lambda x: ops.einsum("btc,cd->btd", x, ops.ones((5, 7)))),
    "tensordot": lambda: raw(lambda x: ops.tensordot(x, ops.ones((5, 7)), axes=1)),
    "convolution op": lambda: raw(lambda x: ops.conv(x, ops.ones((3, 5, 2)))),
}


def twice(layer: layers.Layer, *shape: int) -> keras.Model:
    x = keras.Input(shape)
    return keras.Model(x, layer([x, x]))


def attended(layer: layers.Layer) -> keras.Model:
    return twice_called(layer, 4, 5)


def twice_called(layer: layers.Layer, *shape: int) -> keras.Model:
    x = keras.Input(shape)
    return keras.Model(x, layer(x, x))


def raw(function: Callable[[Any], Any]) -> keras.Model:
    x = keras.Input((4, 5))
    return keras.Model(x, function(x))


@pytest.mark.reliability("layers whose MACs are counted, or named", "right")
@pytest.mark.parametrize("case", COUNTED)
def test_macs_are_those_of_the_traced_graph(case: str) -> None:
    model = COUNTED[case]()
    assert tfprune.macs(model) == profiled_macs(model) > 0


def test_recurrent_cells_count_at_every_step() -> None:
    plain = single(layers.LSTM(5), 6, 4)
    wrapped = single(layers.RNN(layers.LSTMCell(5)), 6, 4)
    assert tfprune.macs(wrapped) == tfprune.macs(plain)
    stacked = single(layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)]), 6, 4)
    assert tfprune.macs(stacked) == tfprune.macs(plain) + 6 * 3 * (5 * 3 + 3 * 3)


UNCOUNTED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "another library": (lambda: single(InTensorFlow(name="mine"), 6, 6, 3), "mine"),
    "another library, within": (
        lambda: single(layers.TimeDistributed(InTensorFlow(name="mine"), name="td"), 2, 6, 6, 3),
        "td/mine",
    ),
    "a cell of its own": (
        lambda: single(layers.RNN(OwnCell(3, name="cell"), name="rnn"), 5, 2),
        "rnn/cell",
    ),
    "a lambda in another library": (
        lambda: single(layers.Lambda(lambda x: tf.linalg.matmul(x, x), name="mine"), 4, 4),
        "mine",
    ),
    "in a nested model": (
        lambda: keras.Sequential(
            [
                image(),
                keras.Sequential([image(), InTensorFlow(name="mine")], name="inner"),
                layers.Conv2D(2, 1),
            ]
        ),
        "inner/mine",
    ),
}


@pytest.mark.reliability("layers whose MACs are counted, or named", "warned")
@pytest.mark.parametrize("case", UNCOUNTED)
def test_what_cannot_be_counted_is_named(case: str) -> None:
    build, path = UNCOUNTED[case]
    model = build()
    work = count_macs(model)
    assert set(work.uncounted) == {path}
    assert work.whole_macs is None
    with pytest.warns(UserWarning, match=f"^macs: 1 of the model's layers .*{path} \\(a "):
        tfprune.macs(model)
    # No share of what is not known.
    with pytest.raises(tfprune.UsageError, match=f"cannot be counted.*{path}"):
        tfprune.slim(model, macs=0.5)
    table = layer_table(model).set_index("layer")
    assert table.loc["total", "macs"] is None
    assert table["share"].isna().all()


def test_a_model_that_is_counted_leaves_no_trace_in_its_layers() -> None:
    block = Block(4)
    model = keras.Sequential([image(), block])
    before = [len(conv._inbound_nodes) for conv in block.convs]
    tfprune.macs(model)
    assert [len(conv._inbound_nodes) for conv in block.convs] == before


def test_a_table_shows_raw_operations_too() -> None:
    x = keras.Input((4, 5))
    y = layers.Dense(5, name="a")(x)
    model = keras.Model(x, ops.matmul(y, ops.transpose(x, (0, 2, 1))))
    table = layer_table(model).set_index("layer")
    assert table.loc["total", "macs"] == 4 * 5 * 5 + 4 * 4 * 5
    assert table["share"].iloc[:-1].sum() == pytest.approx(1)


FROZEN: dict[str, tuple[Callable[[], layers.Layer], str]] = {
    "custom layer": (lambda: Block(4, name="mine"), "mine"),
    "subclass": (lambda: Standardised(4, 3, name="mine"), "mine"),
    "another library": (lambda: InTensorFlow(name="mine"), "mine"),
    "spectral normalization": (
        lambda: layers.SpectralNormalization(layers.Conv2D(4, 3), name="mine"),
        "mine",
    ),
}


@pytest.mark.reliability("layers that stay, each with its reason", "right")
@pytest.mark.parametrize("case", FROZEN)
def test_every_layer_with_a_kernel_is_a_producer_or_frozen(case: str) -> None:
    make, path = FROZEN[case]
    x = image()
    y = layers.Conv2D(4, 1, name="last")(make()(layers.Conv2D(3, 1, name="first")(x)))
    model = keras.Model(x, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(y)))
    groups = tfprune.channel_groups(model)
    assert (path in groups.frozen and "has no rule" in groups.frozen[path]) or case.startswith(
        "spec"
    )
    for layer in model.layers:
        if any(len(weight.shape) > 1 for weight in layer.weights):
            assert layer.name in {*groups.producers, *groups.frozen}


def test_a_subclass_that_computes_the_same_is_slimmed() -> None:
    x = image()
    y = Renamed(4, 3, tag="kept", name="mine")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    slim = tfprune.slim(model, filters=0.5)
    assert slim.get_layer("mine").filters == 2
    assert slim.get_layer("mine").tag == "kept"
