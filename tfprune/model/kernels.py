"""Which kernels a layer multiplies, and at how many positions: what multiply-accumulates count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import layers

from tfprune.errors import UsageError
from tfprune.model.type_table import TypeTable

Shape = tuple[int | None, ...]
# Of a layer and the shapes of its inputs and outputs, batch first: each kernel and how often the
# whole of it is applied for one example.
Kernels = Callable[[Any, Sequence[Shape], Sequence[Shape]], Iterator[tuple[keras.Variable, int]]]


def product(shape: Shape, *without: int) -> int:
    """The product of all sizes but the batch and the axes `without`."""
    left_out = {0, *(axis % len(shape) for axis in without)}
    sizes = [size for axis, size in enumerate(shape) if axis not in left_out]
    if any(size is None for size in sizes):
        raise UsageError(
            f"the tensor shape {tuple(shape)} is open, so its multiply-accumulates cannot be "
            "counted: give the model's Input a fixed shape"
        )
    return math.prod(sizes)  # type: ignore[arg-type]


def _channel_axis(layer: Any) -> int:
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1


def _at_outputs(*names: str) -> Kernels:
    def uses(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Iterator[Any]:
        positions = product(outputs[0], _channel_axis(layer))
        for name in names:
            yield getattr(layer, name), positions

    return uses


def _at_inputs(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Iterator[Any]:
    yield layer.kernel, product(inputs[0], _channel_axis(layer))


def _at_every_step(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Iterator[Any]:
    steps = product((None, inputs[0][1]))
    for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel):
        yield kernel, steps


def _convolved_at_every_step(
    layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Iterator[Any]:
    # Batch first, then the steps where all of them are given out.
    shape = outputs[0][1 + layer.return_sequences :]
    positions = product((None, *shape), 1 if _channel_axis(layer) == 1 else -1)
    for kernel, steps in _at_every_step(layer, inputs, outputs):
        yield kernel, steps * positions


def _of_attention(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Iterator[Any]:
    query = product(outputs[0][: len(inputs[0])], -1)
    # Keys and values have as many steps as each other, be they given in whatever order.
    value = next((n for n in (product(each, -1) for each in inputs[:3]) if n != query), query)
    gate = getattr(layer, "_gate_dense", None)
    for dense in (layer._query_dense, layer._output_dense, *([gate] if gate else [])):
        yield dense.kernel, query
    for dense in (layer._key_dense, layer._value_dense):
        yield dense.kernel, value


def _of_einsum(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Iterator[Any]:
    source, weights = layer.equation.split("->")[0].split(",")
    repeated = [axis for axis, label in enumerate(source) if label in weights]
    # With an ellipsis the labels count from the back.
    back = [axis - len(source) if "." in source else axis for axis in repeated]
    yield layer.kernel, product(inputs[0], *back)


KERNELS: TypeTable[Kernels] = TypeTable(
    {
        layers.ConvLSTM1D: _convolved_at_every_step,
        layers.ConvLSTM2D: _convolved_at_every_step,
        layers.ConvLSTM3D: _convolved_at_every_step,
        layers.EinsumDense: _of_einsum,
        layers.GRU: _at_every_step,
        layers.GroupQueryAttention: _of_attention,
        layers.LSTM: _at_every_step,
        layers.MultiHeadAttention: _of_attention,
        layers.SimpleRNN: _at_every_step,
        layers.Dense: _at_outputs("kernel"),
        layers.Conv1D: _at_outputs("kernel"),
        layers.Conv2D: _at_outputs("kernel"),
        layers.Conv3D: _at_outputs("kernel"),
        layers.DepthwiseConv1D: _at_outputs("kernel"),
        layers.DepthwiseConv2D: _at_outputs("kernel"),
        layers.SeparableConv1D: _at_outputs("depthwise_kernel", "pointwise_kernel"),
        layers.SeparableConv2D: _at_outputs("depthwise_kernel", "pointwise_kernel"),
        layers.Conv1DTranspose: _at_inputs,
        layers.Conv2DTranspose: _at_inputs,
        layers.Conv3DTranspose: _at_inputs,
    }
)
