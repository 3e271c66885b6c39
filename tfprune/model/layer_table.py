"""The table of layer types: which kernels a layer has, their axes, and where it multiplies them.

Weight pruning, multiply-accumulates, timed operators and channel rules read it. A new layer type
gets its row here; attention, wrappers and RNNs are made of layers that have rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
from keras import layers

from tfprune.errors import UsageError
from tfprune.model.type_table import TypeTable

Shape: TypeAlias = tuple[int | None, ...]
# Of a layer and the shapes of its first input and output, batch first: at how many positions the
# whole kernel is applied for one example.
Positions: TypeAlias = Callable[[Any, Shape, Shape], int]

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED_CONVOLUTIONS = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE_CONVOLUTIONS = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE_CONVOLUTIONS = (layers.SeparableConv1D, layers.SeparableConv2D)
CONVOLUTIONAL_LSTMS = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
RECURRENT_CELLS = (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell)


class Axes(NamedTuple):
    """The axes of a kernel that make up the rows and the columns of its matrices.

    Attributes:
        inputs: axes that meet what the layer reads, counted from the front.
        outputs: axes that make what it gives out.
        summed: whether an output is a sum over the inputs.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    summed: bool = True


@dataclass(frozen=True)
class KernelType:
    """One kernel of a layer type.

    Attributes:
        name: the weight's name, as given to `add_weight`.
        inputs: its axis of inputs, from the end; None where an equation tells the axes.
        outputs: its axis of outputs, from the end.
        summed: whether an output is a sum over the inputs; a depthwise kernel and an embedding sum
            over no channel or word.
        positions: where it is applied; None for a lookup table, which multiplies nothing.
        operator: the operator of a runtime that multiplies it and can be timed alone, if any.
    """

    name: str
    inputs: int | None = -2
    outputs: int = -1
    summed: bool = True
    positions: Positions | None = None
    operator: Literal["conv", "depthwise", "dense"] | None = None


def product(shape: Shape, *without: int) -> int:
    """The product of all sizes but the batch and the axes `without`.

    Raises:
        UsageError: one of these sizes is open.
    """
    left_out = {0, *(axis % len(shape) for axis in without)}
    sizes = [size for axis, size in enumerate(shape) if axis not in left_out]
    if any(size is None for size in sizes):
        raise UsageError(
            f"the tensor shape {tuple(shape)} is open, so its multiply-accumulates cannot be "
            "counted: give the model's Input a fixed shape"
        )
    return math.prod(sizes)  # type: ignore[arg-type]


def channel_axis(layer: Any) -> int:
    """The axis of a layer's tensors that holds channels: 1 or -1."""
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1


def _at_outputs(layer: Any, source: Shape, target: Shape) -> int:
    return product(target, channel_axis(layer))


def _at_inputs(layer: Any, source: Shape, target: Shape) -> int:
    return product(source, channel_axis(layer))


def _once(layer: Any, source: Shape, target: Shape) -> int:
    return 1


def _at_outputs_of_every_step(layer: Any, source: Shape, target: Shape) -> int:
    # Batch first, then the steps where all of them are given out.
    image = target[1 + layer.return_sequences :]
    return product((None, source[1])) * product((None, *image), channel_axis(layer))


def _by_equation(layer: Any, source: Shape, target: Shape) -> int:
    read, weights = layer.equation.split("->")[0].split(",")
    repeated = [axis for axis, label in enumerate(read) if label in weights]
    # With an ellipsis the labels count from the back.
    back = [axis - len(read) if "." in read else axis for axis in repeated]
    return product(source, *back)


LAYER_TABLE: TypeTable[tuple[KernelType, ...]] = TypeTable(
    {
        layers.Dense: (KernelType("kernel", positions=_at_outputs, operator="dense"),),
        layers.EinsumDense: (KernelType("kernel", inputs=None, positions=_by_equation),),
        **dict.fromkeys(
            (layers.Conv1D, layers.Conv2D),
            (KernelType("kernel", positions=_at_outputs, operator="conv"),),
        ),
        layers.Conv3D: (KernelType("kernel", positions=_at_outputs),),
        **dict.fromkeys(
            TRANSPOSED_CONVOLUTIONS, (KernelType("kernel", -1, -2, positions=_at_inputs),)
        ),
        **dict.fromkeys(
            DEPTHWISE_CONVOLUTIONS,
            (KernelType("kernel", summed=False, positions=_at_outputs, operator="depthwise"),),
        ),
        **dict.fromkeys(
            SEPARABLE_CONVOLUTIONS,
            (
                KernelType(
                    "depthwise_kernel", summed=False, positions=_at_outputs, operator="depthwise"
                ),
                KernelType("pointwise_kernel", positions=_at_outputs, operator="conv"),
            ),
        ),
        **dict.fromkeys(
            RECURRENT_CELLS,
            (
                KernelType("kernel", positions=_once),
                KernelType("recurrent_kernel", positions=_once),
            ),
        ),
        # Their cell is not public: they show its weights as their own.
        **dict.fromkeys(
            CONVOLUTIONAL_LSTMS,
            (
                KernelType("kernel", positions=_at_outputs_of_every_step),
                KernelType("recurrent_kernel", positions=_at_outputs_of_every_step),
            ),
        ),
        layers.Embedding: (KernelType("embeddings", summed=False),),
    }
)


def kernel_of(layer: Any, kernel_type: KernelType) -> keras.Variable:
    """The weight of a layer that a row of the table means."""
    holder = layer.cell if isinstance(layer, CONVOLUTIONAL_LSTMS) else layer
    return getattr(holder, kernel_type.name)


def kernels_at_positions(
    layer: Any, source: Shape, target: Shape
) -> Iterator[tuple[keras.Variable, int]] | None:
    """Each kernel of a layer that follows the table, and at how many positions it is applied.

    Args:
        layer: a layer or raw operation.
        source: shape of its first input, batch first.
        target: shape of its first output.

    Returns:
        The kernels, None where the table does not hold for what the layer computes.
    """
    kernel_types = LAYER_TABLE.of(layer)
    if kernel_types is None:
        return None
    return (
        (kernel_of(layer, kernel_type), kernel_type.positions(layer, source, target))
        for kernel_type in kernel_types
        if kernel_type.positions is not None
    )


def axes_of(layer: Any, variable: keras.Variable) -> Axes:
    """Tells which axes of a layer's weight are inputs, and which outputs.

    The row of the nearest base class tells, whatever the layer computes. Without a row, the last
    two axes are inputs and outputs.

    Example:
        ```python
        axes_of(dense, dense.kernel)  # Axes(inputs=(0,), outputs=(1,))
        ```
    """
    rank = len(variable.shape)
    row = next((each for each in kernel_types(layer) if each.name == variable.name), None)
    if row is not None and row.inputs is None:
        terms, result = layer.equation.replace(" ", "").replace("...", "").split("->")
        argument, kernel = terms.split(",")
        return Axes(
            tuple(i for i, letter in enumerate(kernel) if letter not in result),
            tuple(i for i, letter in enumerate(kernel) if letter not in argument),
        )
    if rank < 2:
        return Axes((rank - 1,), (), summed=False)
    if row is None:
        return Axes((rank - 2,), (rank - 1,))
    assert row.inputs is not None
    return Axes((rank + row.inputs,), (rank + row.outputs,), row.summed)


def kernel_types(layer: Any) -> Sequence[KernelType]:
    """The row of a layer's type, or of its nearest base class, whatever `call` does; else none."""
    return next((LAYER_TABLE[kind] for kind in type(layer).__mro__ if kind in LAYER_TABLE), ())
