"""Multiply-accumulates (MACs) of a Keras model, and the layers that cannot be counted."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
from keras import layers

from tfprune.model.graph import Call, calls, functional, is_graph
from tfprune.model.input_shape import fix_input_shape
from tfprune.model.layer_table import Shape, TypeTable, kernels_at_positions, product
from tfprune.model.reference import InputShape


@dataclass(frozen=True)
class KernelUse:
    """One kernel that is applied at a number of positions, or one product of two activations.

    Attributes:
        layer: the layer or raw operation of the graph that multiplies.
        kernel: the weight; each entry costs one multiply-accumulate per position. None for a
            product of two activations, such as queries with keys.
        positions: how often the whole kernel is applied for one example. Without a kernel, the
            number of multiply-accumulates.
    """

    layer: keras.Operation
    kernel: keras.Variable | None
    positions: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example."""
        return self.positions * (1 if self.kernel is None else math.prod(self.kernel.shape))


class MacCount(NamedTuple):
    """The multiplications of a model for one example.

    Attributes:
        uses: the kernels and products; a shared layer is in it once per call.
        uncounted: layers that cannot be counted: path to name of the type.
    """

    uses: list[KernelUse]
    uncounted: dict[str, str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layers that can be counted."""
        return sum(use.macs for use in self.uses)

    @property
    def whole_macs(self) -> int | None:
        """Multiply-accumulates of the model; None if a layer cannot be counted."""
        return None if self.uncounted else self.macs


def macs(model: keras.Model, *, input_shape: InputShape | None = None) -> int:
    """Counts the multiply-accumulates of a model for one example.

    Example:
        ```python
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        tfprune.macs(model)  # 3888 = 6 * 6 positions * 3 * 3 * 3 * 4 entries of the kernel
        ```

    The count includes kernels of convolutions, dense and recurrent layers, and products of
    activations, as in attention. It includes the layers inside nested models, wrappers (times the
    number of steps) and custom layers. Biases, normalisation, pooling, activations and additions
    count as zero.

    Args:
        model: a functional or built Sequential Keras model.
        input_shape: the shape of one example where the model leaves sizes open, such as
            (224, 224, 3), or those of several inputs by their names; see `fix_input_shape`.

    Returns:
        The number of multiply-accumulates. A warning names the layers that cannot be counted and
        are not included: loops, and layers whose `call` uses another library than Keras.

    Raises:
        UsageError: the model is subclassed or not built, a size is open, or the shape does not fit.

    Source:
        The convention of He et al. 2016, https://arxiv.org/abs/1512.03385, and Li et al. 2017,
        https://arxiv.org/abs/1608.08710.
    """
    count = count_macs(model if input_shape is None else fix_input_shape(model, input_shape))
    if count.uncounted:
        warnings.warn(
            f"macs: {len(count.uncounted)} of the model's layers are not in the count, since what "
            f"they multiply is not known: {describe_layers(count.uncounted)}",
            stacklevel=2,
        )
    return count.macs


def describe_layers(uncounted: dict[str, str]) -> str:
    """Names up to three layers with their types.

    Example:
        ```python
        describe_layers({"block": "Block", "fft": "FFT"})  # "block (a Block), fft (a FFT)"
        ```
    """
    names = [f"{path} (a {kind})" for path, kind in uncounted.items()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def count_macs(model: keras.Model) -> MacCount:
    """Lists the kernels and products of a model, and the layers that cannot be counted.

    Example:
        ```python
        for use in count_macs(model).uses:
            print(use.layer.name, use.macs)
        ```

    Args:
        model: a functional or built Sequential Keras model whose input sizes are fixed.

    Raises:
        UsageError: the model has no graph, or a size is open.
    """
    return _count_graph(model, "")


def kernel_uses(model: keras.Model) -> list[KernelUse]:
    """The uses of kernels in a model, without products of activations.

    Example:
        ```python
        [use.layer.name for use in kernel_uses(model)]  # ["conv", "dense"]
        ```
    """
    return [use for use in count_macs(model).uses if use.kernel is not None]


def _count_graph(model: keras.Model, prefix: str) -> MacCount:
    count = MacCount([], {})
    for call in calls(model):
        uses, uncounted = _count_call(call, f"{prefix}{call.operation.name}")
        count.uses.extend(uses)
        count.uncounted.update(uncounted)
    return count


def _count_call(call: Call, path: str) -> MacCount:
    operation: Any = call.operation
    if is_graph(operation):
        return _count_graph(operation, f"{path}/")
    source, target = (tuple(ends[0].shape) if ends else () for ends in (call.inputs, call.outputs))
    kernels = kernels_at_positions(operation, source, target)
    if kernels is not None:
        return MacCount([KernelUse(operation, *kernel) for kernel in kernels], {})
    if products := _PRODUCTS.of(operation):
        return MacCount([KernelUse(operation, None, products(call))], {})
    if wrapper := _WRAPPERS.of(operation):
        return wrapper(call, path)
    if _is_free(operation):
        return MacCount([], {})
    return _count_inside(call, path)


# -- products of two activations ----------------------------------------------------------------


def _shape(value: Any) -> Shape:
    return tuple(getattr(value, "shape", ()))


def _arguments(call: Call) -> dict[str, Any]:
    """The arguments of a call by parameter name."""
    bound = inspect.signature(call.operation.call).bind(*call.args, **call.kwargs)
    return dict(bound.arguments)


def _of_matmul(call: Call) -> int:
    """For `ops.dot`, `inner` and `vdot` too: each output sums over the last axis of the first."""
    first, *_ = (_shape(value) for value in _arguments(call).values())
    return product(tuple(call.outputs[0].shape)) * product((None, first[-1]))


def _of_tensordot(call: Call) -> int:
    first = _shape(next(iter(_arguments(call).values())))
    axes = call.operation.axes
    if isinstance(axes, int):
        summed = first[len(first) - axes :] if axes else ()
    else:
        first_axes = axes[0] if isinstance(axes[0], list | tuple) else [axes[0]]
        summed = tuple(first[axis] for axis in first_axes)
    return product(tuple(call.outputs[0].shape)) * product((None, *summed))


def _of_dot_layer(call: Call) -> int:
    axes = call.operation.axes
    axis = axes if isinstance(axes, int) else axes[0]
    return product(tuple(call.outputs[0].shape)) * product((None, call.inputs[0].shape[axis]))


def _of_einsum_op(call: Call) -> int:
    """The product of the sizes of all labels except the batch."""
    subscripts = call.operation.subscripts
    operands = [_shape(tensor) for tensor in _tensors(call)]
    sizes: dict[str, int | None] = {}
    for labels, shape in zip(subscripts.split("->")[0].split(","), operands, strict=True):
        named = labels.replace(" ", "")
        before, dots, after = named.partition("...")
        axes = [*before, *(f".{i}" for i in range(len(shape) - len(before) - len(after)))]
        for label, size in zip([*axes, *after] if dots else [*named], shape, strict=True):
            sizes[label] = size if sizes.get(label) in (None, 1) else sizes[label]
    # The first open size is the batch.
    opened = [label for label, size in sizes.items() if size is None]
    known = [size for label, size in sizes.items() if label not in opened[:1]]
    return product((None, *known))


def _tensors(call: Call) -> list[Any]:
    arguments = keras.tree.flatten((call.args, dict(call.kwargs)))
    return [argument for argument in arguments if hasattr(argument, "shape")]


def _of_conv_op(call: Call) -> int:
    _, kernel, *_ = map(_shape, _arguments(call).values())
    return product(tuple(call.outputs[0].shape)) * math.prod(kernel[:-1])  # type: ignore[arg-type]


def _of_transposed_op(call: Call) -> int:
    _, kernel, *_ = map(_shape, _arguments(call).values())
    source = product(tuple(call.inputs[0].shape))
    return source * math.prod(kernel[:-1])  # type: ignore[arg-type]


def _of_depthwise_op(call: Call) -> int:
    _, kernel, *_ = map(_shape, _arguments(call).values())
    return product(tuple(call.outputs[0].shape)) * math.prod(kernel[:-2])  # type: ignore[arg-type]


def _of_attention_op(call: Call) -> int:
    arguments = _arguments(call)
    (_, steps, heads, size), key = _shape(arguments["query"]), _shape(arguments["key"])
    return 2 * product((None, steps, heads, size)) * product((None, key[1]))


def _of_attention_layer(call: Call) -> int:
    query, value, *rest = (_shape(tensor) for tensor in call.inputs)
    key = rest[0] if rest and len(rest[0]) == 3 else value
    both = product((None, query[1])) * product((None, key[1]))
    return both * (product((None, query[-1])) + product((None, value[-1])))


def _operations(**functions: Callable[[Call], int]) -> dict[type, Callable[[Call], int]]:
    from keras.src.ops import nn
    from keras.src.ops import numpy as knp

    homes = (knp, nn)
    return {
        getattr(home, name): function
        for name, function in functions.items()
        for home in homes
        if hasattr(home, name)
    }


_PRODUCTS: TypeTable[Callable[[Call], int]] = TypeTable(
    {
        layers.Attention: _of_attention_layer,
        layers.AdditiveAttention: _of_attention_layer,
        layers.Dot: _of_dot_layer,
        **_operations(
            Matmul=_of_matmul,
            Dot=_of_matmul,
            Inner=_of_matmul,
            Vdot=_of_matmul,
            Tensordot=_of_tensordot,
            Einsum=_of_einsum_op,
            Conv=_of_conv_op,
            ConvTranspose=_of_transposed_op,
            DepthwiseConv=_of_depthwise_op,
            DotProductAttention=_of_attention_op,
        ),
    }
)


# -- layers made of layers ------------------------------------------------------------------------


def _at_each_step(call: Call, path: str) -> MacCount:
    """The MACs of the wrapped layer or model, times the steps."""
    layer: Any = call.operation
    steps = product((None, call.inputs[0].shape[1]))
    inner = Call(layer.layer, tuple(map(one_step, call.inputs)), tuple(map(one_step, call.outputs)))
    inner = replace(inner, args=inner.inputs)
    count = _count_call(inner, f"{path}/{layer.layer.name}")
    # A wrapped layer is not in the graph, so its uses belong to the wrapper.
    in_graph = is_graph(layer.layer)
    return MacCount(
        [
            replace(use, positions=use.positions * steps, layer=use.layer if in_graph else layer)
            for use in count.uses
        ],
        count.uncounted,
    )


def one_step(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A symbolic tensor without the second axis of another one, which counts the steps.

    Example:
        ```python
        one_step(keras.Input((10, 8))).shape  # (None, 8)
        ```
    """
    return keras.KerasTensor((tensor.shape[0], *tensor.shape[2:]), dtype=tensor.dtype)


def _both_ways(call: Call, path: str) -> MacCount:
    layer: Any = call.operation
    both = MacCount([], {})
    for direction in (layer.forward_layer, layer.backward_layer):
        count = _count_call(replace(call, operation=direction), f"{path}/{direction.name}")
        both.uses.extend(replace(use, layer=layer) for use in count.uses)
        both.uncounted.update(count.uncounted)
    return both


def _of_cells(call: Call, path: str) -> MacCount:
    """The MACs of the cells of an RNN, times the steps."""
    layer: Any = call.operation
    steps = product((None, call.inputs[0].shape[1]))
    cells = layer.cell.cells if isinstance(layer.cell, layers.StackedRNNCells) else [layer.cell]
    count = MacCount([], {})
    for cell in cells:
        kernels = kernels_at_positions(cell, (), ())
        if kernels is None:
            count.uncounted[f"{path}/{cell.name}"] = type(cell).__name__
        else:
            count.uses.extend(KernelUse(layer, kernel, steps) for kernel, _ in kernels)
    return count


def _of_heads(call: Call, path: str) -> MacCount:
    """The projections, the products of queries with keys, and of attention weights with values."""
    layer: Any = call.operation
    arguments = _arguments(call)
    query, value = _shape(arguments["query"]), _shape(arguments["value"])
    queries, values = product(query, -1), product(value, -1)
    gate = getattr(layer, "_gate_dense", None)
    projections = [
        *((dense, queries) for dense in (layer._query_dense, layer._output_dense)),
        *([(gate, queries)] if gate else []),
        *((dense, values) for dense in (layer._key_dense, layer._value_dense)),
    ]
    axes = getattr(layer, "_attention_axes", None) or range(1, len(query) - 1)
    attended = product((None, *(value[axis] for axis in axes)))
    if isinstance(layer, layers.GroupQueryAttention):
        size = 2 * layer.num_query_heads * layer.head_dim
    else:
        heads = getattr(layer, "num_heads", None) or layer._num_heads
        keys = getattr(layer, "key_dim", None) or layer._key_dim
        size = heads * (keys + (getattr(layer, "value_dim", None) or layer._value_dim or keys))
    uses = [KernelUse(layer, dense.kernel, positions) for dense, positions in projections]
    return MacCount([*uses, KernelUse(layer, None, queries * attended * size)], {})


_WRAPPERS: TypeTable[Callable[[Call, str], MacCount]] = TypeTable(
    {
        layers.TimeDistributed: _at_each_step,
        layers.Bidirectional: _both_ways,
        **dict.fromkeys((layers.RNN, layers.SimpleRNN, layers.GRU, layers.LSTM), _of_cells),
        **dict.fromkeys((layers.MultiHeadAttention, layers.GroupQueryAttention), _of_heads),
    }
)


# -- layers that count as zero by convention ----------------------------------------------------

_NORMS = (
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
    layers.UnitNormalization,
)
_LOOKUPS = (layers.Embedding, layers.PReLU)
# These multiply matrices, compute Fourier transforms, or call a function that they receive.
_NOT_FREE = [
    "MelSpectrogram",
    "STFTSpectrogram",
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "Cond",
    "ForiLoop",
    "Map",
    "Scan",
    "AssociativeScan",
    "Switch",
    "VectorizedMap",
    "WhileLoop",
    "CDist",
    "FFT",
    "FFT2",
    "IFFT2",
    "RFFT",
    "IRFFT",
    "STFT",
    "ISTFT",
    "Corrcoef",
    "Correlate",
    "Cross",
    "Kron",
    "Outer",
    "SeparableConv",
    "JVP",
]


def _is_free(operation: Any) -> bool:
    """Whether an operation is part of Keras and counts as zero, like normalisation and pooling."""
    kind = type(operation)
    if kind.__module__.partition(".")[0] != "keras" or kind.__name__ in _NOT_FREE:
        return False
    if ".ops.linalg" in kind.__module__ or "call" in vars(operation):
        return False
    if not isinstance(operation, keras.Layer) or ".preprocessing." in kind.__module__:
        return True
    if isinstance(operation, (*_NORMS, *_LOOKUPS)) or kind.__name__ == "RMSNormalization":
        return True
    matrices = any(len(weight.shape) > 1 for weight in operation.weights)
    return not matrices and not operation._flatten_layers(include_self=False)


# -- custom layers ------------------------------------------------------------------------------


def _count_inside(call: Call, path: str) -> MacCount:
    """Counts a layer that is made of Keras layers and operations.

    The function calls the layer on symbolic tensors, as a functional model does, and counts the
    resulting graph. This fails for a `call` that loops or uses another library; such a layer is
    uncounted.
    """
    operation: Any = call.operation
    unknown = MacCount([], {path: type(operation).__name__})
    inputs = {
        id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
        for tensor in call.inputs
    }
    args, kwargs = keras.tree.map_structure(
        lambda argument: inputs.get(id(argument), argument), (call.args, dict(call.kwargs))
    )
    with _restore_nodes(operation):
        try:
            outputs = keras.tree.flatten(operation.call(*args, **kwargs))
            graph = keras.Model(list(inputs.values()), outputs)
            functional(graph)
            count = _count_graph(graph, f"{path}/")
        # A `call` in another library may raise anything for a symbolic tensor. If it does not
        # raise, its reshaping may leave sizes open.
        except Exception:
            return unknown
    if operation in graph.operations and any(
        type(member).__module__.partition(".")[0] != "keras" for member in graph.operations
    ):
        return unknown
    return MacCount([replace(use, layer=operation) for use in count.uses], count.uncounted)


@contextmanager
def _restore_nodes(operation: Any) -> Iterator[None]:
    """Removes the nodes that calls within the context add to the layers of an operation."""
    inner: Sequence[Any] = getattr(operation, "_flatten_layers", lambda **_: [])(include_self=False)
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in inner]
    try:
        yield
    finally:
        for layer, entering, leaving in before:
            del layer._inbound_nodes[entering:]
            del layer._outbound_nodes[leaving:]
