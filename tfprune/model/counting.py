"""Multiply-accumulates of a Keras model, and what of it cannot be counted."""

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
from tfprune.model.layer_table import Shape, kernels_at_positions, product
from tfprune.model.type_table import TypeTable


@dataclass(frozen=True)
class KernelUse:
    """One kernel multiplied at a number of positions, or one product of two activations.

    Attributes:
        layer: the layer or raw operation of the graph that does it.
        kernel: the weight; each of its entries does one multiply-accumulate a position. None for a
            product of activations, such as queries with keys.
        positions: how often the whole kernel is applied for one example; without a kernel, the
            multiply-accumulates.
    """

    layer: keras.Operation
    kernel: keras.Variable | None
    positions: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example."""
        return self.positions * (1 if self.kernel is None else math.prod(self.kernel.shape))


class Work(NamedTuple):
    """What a model multiplies for one example.

    Attributes:
        uses: its kernels and products, a shared layer once a call.
        uncounted: the path of each layer whose multiplications cannot be counted, to its type.
    """

    uses: list[KernelUse]
    uncounted: dict[str, str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all that can be counted."""
        return sum(use.macs for use in self.uses)

    @property
    def whole_macs(self) -> int | None:
        """Multiply-accumulates of the model; None where something cannot be counted."""
        return None if self.uncounted else self.macs


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of one example through a model.

    Example:
        ```python
        tfprune.macs(model)  # 9_876_480
        ```

    Kernels of convolutions, dense and recurrent layers count, and products of activations, as in
    attention; nested models, wrappers (times their steps) and what custom layers are made of, too.
    Biases, normalisation, pooling, activations and additions count as zero, as in He et al. 2016
    and Li et al. 2017.

    Args:
        model: a functional or built Sequential Keras model whose input sizes are fixed.

    Returns:
        The count. A warning names the layers that are not in it because they cannot be counted:
        those whose `call` is written in another library than Keras, and loops.

    Raises:
        UsageError: the model is subclassed or not built, or a size is open.
    """
    work = work_of(model)
    if work.uncounted:
        warnings.warn(
            f"macs: {len(work.uncounted)} of the model's layers are not in the count, since what "
            f"they multiply is not known: {listed(work.uncounted)}",
            stacklevel=2,
        )
    return work.macs


def listed(uncounted: dict[str, str]) -> str:
    """Layers and their types in a few words, such as "block (a Block) and 2 more"."""
    names = [f"{path} (a {kind})" for path, kind in uncounted.items()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def work_of(model: keras.Model) -> Work:
    """Every use of a kernel in a model, every product, and what cannot be counted.

    Raises:
        UsageError: the model has no graph, or a size is open.
    """
    return _of_graph(model, "")


def kernel_uses(model: keras.Model) -> list[KernelUse]:
    """The uses of kernels alone, without products of activations."""
    return [use for use in work_of(model).uses if use.kernel is not None]


def _of_graph(model: keras.Model, prefix: str) -> Work:
    found = Work([], {})
    for call in calls(model):
        uses, uncounted = _of_call(call, f"{prefix}{call.operation.name}")
        found.uses.extend(uses)
        found.uncounted.update(uncounted)
    return found


def _of_call(call: Call, path: str) -> Work:
    operation: Any = call.operation
    if is_graph(operation):
        return _of_graph(operation, f"{path}/")
    source, target = (tuple(ends[0].shape) if ends else () for ends in (call.inputs, call.outputs))
    kernels = kernels_at_positions(operation, source, target)
    if kernels is not None:
        return Work([KernelUse(operation, *kernel) for kernel in kernels], {})
    if products := _PRODUCTS.of(operation):
        return Work([KernelUse(operation, None, products(call))], {})
    if wrapper := _WRAPPERS.of(operation):
        return wrapper(call, path)
    if _is_free(operation):
        return Work([], {})
    return _unfolded(call, path)


# -- products of two activations ----------------------------------------------------------------


def _shape(value: Any) -> Shape:
    return tuple(getattr(value, "shape", ()))


def _given(call: Call) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters."""
    bound = inspect.signature(call.operation.call).bind(*call.args, **call.kwargs)
    return dict(bound.arguments)


def _of_matmul(call: Call) -> int:
    """Of `ops.dot`, `inner` and `vdot` too: the last axis of the first tensor is summed up."""
    first, *_ = (_shape(each) for each in _given(call).values())
    return product(tuple(call.outputs[0].shape)) * product((None, first[-1]))


def _of_tensordot(call: Call) -> int:
    first = _shape(next(iter(_given(call).values())))
    axes = call.operation.axes
    if isinstance(axes, int):
        summed = first[len(first) - axes :] if axes else ()
    else:
        one = axes[0] if isinstance(axes[0], list | tuple) else [axes[0]]
        summed = tuple(first[axis] for axis in one)
    return product(tuple(call.outputs[0].shape)) * product((None, *summed))


def _of_dot_layer(call: Call) -> int:
    axes = call.operation.axes
    axis = axes if isinstance(axes, int) else axes[0]
    return product(tuple(call.outputs[0].shape)) * product((None, call.inputs[0].shape[axis]))


def _of_einsum_op(call: Call) -> int:
    """All labels together: each combination is one multiplication; the batch is one label."""
    subscripts = call.operation.subscripts
    operands = [_shape(each) for each in _flat(call)]
    sizes: dict[str, int | None] = {}
    for labels, shape in zip(subscripts.split("->")[0].split(","), operands, strict=True):
        named = labels.replace(" ", "")
        before, dots, after = named.partition("...")
        axes = [*before, *(f".{i}" for i in range(len(shape) - len(before) - len(after)))]
        for label, size in zip([*axes, *after] if dots else [*named], shape, strict=True):
            sizes[label] = size if sizes.get(label) in (None, 1) else sizes[label]
    # The batch, whose size is open, counts once.
    opened = [label for label, size in sizes.items() if size is None]
    known = [size for label, size in sizes.items() if label not in opened[:1]]
    return product((None, *known))


def _flat(call: Call) -> list[Any]:
    given = keras.tree.flatten((call.args, dict(call.kwargs)))
    return [each for each in given if hasattr(each, "shape")]


def _of_conv_op(call: Call) -> int:
    given = list(_given(call).values())
    kernel = _shape(given[1])
    return product(tuple(call.outputs[0].shape)) * math.prod(kernel[:-1])  # type: ignore[arg-type]


def _of_transposed_op(call: Call) -> int:
    given = list(_given(call).values())
    kernel = _shape(given[1])
    source = product(tuple(call.inputs[0].shape))
    return source * math.prod(kernel[:-1])  # type: ignore[arg-type]


def _of_depthwise_op(call: Call) -> int:
    given = list(_given(call).values())
    kernel = _shape(given[1])
    return product(tuple(call.outputs[0].shape)) * math.prod(kernel[:-2])  # type: ignore[arg-type]


def _of_attention_op(call: Call) -> int:
    given = _given(call)
    (_, steps, heads, size), key = _shape(given["query"]), _shape(given["key"])
    return 2 * product((None, steps, heads, size)) * product((None, key[1]))


def _of_attention_layer(call: Call) -> int:
    query, value, *rest = (_shape(each) for each in call.inputs)
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


def _at_each_step(call: Call, path: str) -> Work:
    """What the wrapped layer or model does, times the steps."""
    layer: Any = call.operation
    steps = product((None, call.inputs[0].shape[1]))
    inner = Call(layer.layer, tuple(map(one_step, call.inputs)), tuple(map(one_step, call.outputs)))
    inner = replace(inner, args=inner.inputs)
    work = _of_call(inner, f"{path}/{layer.layer.name}")
    # Of a layer that the graph does not show, the wrapper has the work.
    shown = is_graph(layer.layer)
    return Work(
        [
            replace(use, positions=use.positions * steps, layer=use.layer if shown else layer)
            for use in work.uses
        ],
        work.uncounted,
    )


def one_step(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A tensor like another one, without its second axis."""
    return keras.KerasTensor((tensor.shape[0], *tensor.shape[2:]), dtype=tensor.dtype)


def _both_ways(call: Call, path: str) -> Work:
    layer: Any = call.operation
    found = Work([], {})
    for way in (layer.forward_layer, layer.backward_layer):
        work = _of_call(replace(call, operation=way), f"{path}/{way.name}")
        found.uses.extend(replace(use, layer=layer) for use in work.uses)
        found.uncounted.update(work.uncounted)
    return found


def _of_cells(call: Call, path: str) -> Work:
    """What the cell of an RNN does, times the steps."""
    layer: Any = call.operation
    steps = product((None, call.inputs[0].shape[1]))
    cells = layer.cell.cells if isinstance(layer.cell, layers.StackedRNNCells) else [layer.cell]
    found = Work([], {})
    for cell in cells:
        kernels = kernels_at_positions(cell, (), ())
        if kernels is None:
            found.uncounted[f"{path}/{cell.name}"] = type(cell).__name__
        else:
            found.uses.extend(KernelUse(layer, kernel, steps) for kernel, _ in kernels)
    return found


def _of_heads(call: Call, path: str) -> Work:
    """The projections, queries with keys, and the weights with values."""
    layer: Any = call.operation
    given = _given(call)
    query, value = _shape(given["query"]), _shape(given["value"])
    asking, answering = product(query, -1), product(value, -1)
    gate = getattr(layer, "_gate_dense", None)
    projections = [
        *((dense, asking) for dense in (layer._query_dense, layer._output_dense)),
        *([(gate, asking)] if gate else []),
        *((dense, answering) for dense in (layer._key_dense, layer._value_dense)),
    ]
    axes = getattr(layer, "_attention_axes", None) or range(1, len(query) - 1)
    looked_at = product((None, *(value[axis] for axis in axes)))
    if isinstance(layer, layers.GroupQueryAttention):
        size = 2 * layer.num_query_heads * layer.head_dim
    else:
        heads = getattr(layer, "num_heads", None) or layer._num_heads
        keys = getattr(layer, "key_dim", None) or layer._key_dim
        size = heads * (keys + (getattr(layer, "value_dim", None) or layer._value_dim or keys))
    uses = [KernelUse(layer, dense.kernel, positions) for dense, positions in projections]
    return Work([*uses, KernelUse(layer, None, asking * looked_at * size)], {})


_WRAPPERS: TypeTable[Callable[[Call, str], Work]] = TypeTable(
    {
        layers.TimeDistributed: _at_each_step,
        layers.Bidirectional: _both_ways,
        **dict.fromkeys((layers.RNN, layers.SimpleRNN, layers.GRU, layers.LSTM), _of_cells),
        **dict.fromkeys((layers.MultiHeadAttention, layers.GroupQueryAttention), _of_heads),
    }
)


# -- what multiplies nothing, by convention -----------------------------------------------------

_NORMS = (
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
    layers.UnitNormalization,
)
_LOOKUPS = (layers.Embedding, layers.PReLU)
# They compute with matrices or Fourier transforms, or something that they are given.
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
    """Whether it is Keras' own and counts as zero, as normalisation and pooling do."""
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


# -- layers of other kinds ----------------------------------------------------------------------


def _unfolded(call: Call, path: str) -> Work:
    """The work of a layer that is made of Keras layers and operations, told by calling it.

    Its `call` is given symbolic tensors, as by a functional model. Where it is written in another
    library, or loops, that fails and the layer is not counted.
    """
    operation: Any = call.operation
    unknown = Work([], {path: type(operation).__name__})
    inputs = {
        id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
        for tensor in call.inputs
    }
    args, kwargs = keras.tree.map_structure(
        lambda each: inputs.get(id(each), each), (call.args, dict(call.kwargs))
    )
    with _unseen(operation):
        try:
            outputs = keras.tree.flatten(operation.call(*args, **kwargs))
            graph = keras.Model(list(inputs.values()), outputs)
            functional(graph)
            work = _of_graph(graph, f"{path}/")
        # A `call` in another library raises what it likes for a tensor without numbers; where it
        # goes through, its own reshaping may leave sizes open.
        except Exception:
            return unknown
    if any(type(each).__module__.partition(".")[0] != "keras" for each in graph.operations) and (
        operation in graph.operations
    ):
        return unknown
    return Work([replace(use, layer=operation) for use in work.uses], work.uncounted)


@contextmanager
def _unseen(operation: Any) -> Iterator[None]:
    """Takes away the traces that calls leave in the layers inside an operation."""
    inner: Sequence[Any] = getattr(operation, "_flatten_layers", lambda **_: [])(include_self=False)
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in inner]
    try:
        yield
    finally:
        for layer, entering, leaving in before:
            del layer._inbound_nodes[entering:]
            del layer._outbound_nodes[leaving:]
