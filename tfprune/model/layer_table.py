"""The table of layer types: which kernels a layer has, their axes, and where it multiplies them.

Weight pruning, MAC counts, timed operators and channel rules read this table. A new layer type gets
one row here. Attention, wrappers and RNNs need none, since the layers inside them have rows. A
subclass has the row of its base class where it computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import keras
from keras import layers

from tfprune.errors import UsageError

T = TypeVar("T")

# Methods that a subclass may define without changing what it computes: they build, describe and
# save the layer.
_HARMLESS = {
    "build",
    "build_from_config",
    "compute_mask",
    "compute_output_shape",
    "from_config",
    "get_build_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}

Shape: TypeAlias = tuple[int | None, ...]
# Maps a layer and the shapes of its first input and first output, batch first, to the number of
# positions at which the whole kernel is applied for one example.
Positions: TypeAlias = Callable[[Any, Shape, Shape], int]

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED_CONVOLUTIONS = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE_CONVOLUTIONS = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE_CONVOLUTIONS = (layers.SeparableConv1D, layers.SeparableConv2D)
CONVOLUTIONAL_LSTMS = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
RECURRENT_CELLS = (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell)


class TypeTable(dict[type, T]):
    """A table by layer or operation type, which also covers subclasses that compute the same.

    Example:
        ```python
        table = TypeTable({keras.layers.Conv2D: "convolution"})
        table.of(keras.layers.Conv2D(8, 3))  # "convolution"
        table.of(keras.layers.Dense(2))  # None
        ```

    A subclass has the entry of its base class if no class between the two overrides `call` or
    another method of the base, except methods that build, describe or save the layer.
    """

    def of(self, operation: object) -> T | None:
        """The entry for an operation; None if the table has none."""
        if "call" in vars(operation):
            return None
        try:
            return self[type(operation)]
        except KeyError:
            return None

    def __missing__(self, layer_type: type) -> T:
        for base in layer_type.__mro__:
            if base in self and computes_like(layer_type, base):
                return self[base]
            if base in self:
                break
        raise KeyError(layer_type)


def computes_like(layer_type: type, base: type) -> bool:
    """Whether a class computes what its base class computes.

    Args:
        layer_type: the base class itself or a subclass of it.
        base: a class of the table.
    """
    between = layer_type.__mro__[: layer_type.__mro__.index(base)]
    names = {name for subclass in between for name in vars(subclass)} - _HARMLESS
    return not any(
        hasattr(base, name)
        for name in names
        if name == "__call__" or not (name.startswith("__") and name.endswith("__"))
    )


class Axes(NamedTuple):
    """The input and output axes of a kernel.

    Attributes:
        inputs: axes of the channels that the layer reads, counted from the front.
        outputs: axes of the channels that the layer returns, counted from the front.
        summed: whether each output is a sum over the inputs.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    summed: bool = True

    @property
    def channels(self) -> tuple[int, ...]:
        """The axes whose entries have a scale of their own in TFLite's int8 kernels.

        A depthwise kernel has an output for each pair of input and multiplier.
        """
        return self.outputs if self.summed else (*self.inputs, *self.outputs)


@dataclass(frozen=True)
class KernelType:
    """One kernel of a layer type.

    Attributes:
        name: the name of the weight, which is also the attribute of the layer.
        inputs: the input axis, counted from the end; None if the layer's equation defines the axes.
        outputs: the output axis, counted from the end.
        summed: whether each output is a sum over the inputs. It is not for a depthwise kernel and
            an embedding.
        positions: counts the positions at which the kernel is applied; None for a lookup table,
            which multiplies nothing.
        operator: the operator of a runtime that multiplies by the kernel and can be timed alone.
    """

    name: str
    inputs: int | None = -2
    outputs: int = -1
    summed: bool = True
    positions: Positions | None = None
    operator: Literal["conv", "depthwise", "dense"] | None = None


def product(shape: Shape, *without: int) -> int:
    """The product of the sizes of a tensor, except the batch and the axes in `without`.

    Example:
        ```python
        product((None, 8, 8, 3))  # 192
        product((None, 8, 8, 3), -1)  # 64
        ```

    Raises:
        UsageError: one of the multiplied sizes is open.
    """
    left_out = {0, *(axis % len(shape) for axis in without)}
    sizes = [size for axis, size in enumerate(shape) if axis not in left_out]
    if any(size is None for size in sizes):
        raise UsageError(
            f"the tensor shape {tuple(shape)} is open, so its multiply-accumulates cannot be "
            "counted: give input_shape (--input-shape), or a fixed shape to the model's Input"
        )
    return math.prod(sizes)  # type: ignore[arg-type]


def channel_axis(layer: Any) -> int:
    """The channel axis of a layer's input and output: 1 or -1.

    Example:
        ```python
        channel_axis(keras.layers.Conv2D(8, 3, data_format="channels_first"))  # 1
        ```
    """
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1


def _at_outputs(layer: Any, source: Shape, target: Shape) -> int:
    return product(target, channel_axis(layer))


def _at_inputs(layer: Any, source: Shape, target: Shape) -> int:
    return product(source, channel_axis(layer))


def _once(layer: Any, source: Shape, target: Shape) -> int:
    return 1


def _at_outputs_of_every_step(layer: Any, source: Shape, target: Shape) -> int:
    # The first axis is the batch; the second is the steps if the layer returns all of them.
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
        # The cell of these layers is not public, so the row belongs to the layer.
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
    """The weight of a layer that belongs to a kernel type.

    Example:
        ```python
        [kernel_of(layer, kernel_type) for kernel_type in kernel_types(layer)]
        ```
    """
    holder = layer.cell if isinstance(layer, CONVOLUTIONAL_LSTMS) else layer
    return getattr(holder, kernel_type.name)


def kernels_at_positions(
    layer: Any, source: Shape, target: Shape
) -> Iterator[tuple[keras.Variable, int]] | None:
    """Each kernel of a layer, with the number of positions at which it is applied.

    Example:
        ```python
        conv = keras.layers.Conv2D(4, 3)
        conv.build((None, 8, 8, 3))
        list(kernels_at_positions(conv, (None, 8, 8, 3), (None, 6, 6, 4)))  # [(conv.kernel, 36)]
        ```

    Args:
        layer: a layer or raw operation.
        source: the shape of its first input, batch first.
        target: the shape of its first output, batch first.

    Returns:
        The kernels with their positions; None if the table has no row that describes what the layer
        computes.
    """
    row = LAYER_TABLE.of(layer)
    if row is None:
        return None
    return (
        (kernel_of(layer, kernel_type), kernel_type.positions(layer, source, target))
        for kernel_type in row
        if kernel_type.positions is not None
    )


def axes_of(layer: Any, variable: keras.Variable) -> Axes:
    """The input and output axes of a layer's weight.

    Example:
        ```python
        dense = keras.layers.Dense(2)
        dense.build((None, 3))
        axes_of(dense, dense.kernel)  # Axes(inputs=(0,), outputs=(1,), summed=True)
        ```

    The row of the nearest base class defines the axes, even if the layer overrides `call`. Without
    a row, the last two axes are inputs and outputs.
    """
    rank = len(variable.shape)
    rows = {kernel_type.name: kernel_type for kernel_type in kernel_types(layer)}
    row = rows.get(variable.name)
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
    """The kernel types of a layer or of its nearest base class, even if it overrides `call`.

    Example:
        ```python
        [kernel_type.name for kernel_type in kernel_types(keras.layers.Dense(2))]  # ["kernel"]
        ```

    Returns:
        The kernel types; empty if no base class has a row.
    """
    return next((LAYER_TABLE[kind] for kind in type(layer).__mro__ if kind in LAYER_TABLE), ())
