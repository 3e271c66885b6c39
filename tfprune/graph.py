"""A Keras model as a graph: its calls in order, its layers by name, its multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import keras
from keras import layers

from tfprune.errors import UsageError


@dataclass(frozen=True)
class Call:
    """One use of an operation in a graph.

    Attributes:
        operation: the layer, nested model or raw `keras.ops` operation that is called.
        inputs: the Keras tensors it reads, in the order of its arguments.
        outputs: the Keras tensors it returns.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def is_graph(operation: object) -> bool:
    """Whether `operation` is a model made of a graph that can be walked."""
    return isinstance(operation, keras.Sequential) or hasattr(operation, "_nodes_by_depth")


def functional(model: keras.Model) -> Any:
    """The functional model behind `model`.

    Args:
        model: a functional or built Sequential Keras model.

    Raises:
        UsageError: the model is subclassed or not yet built, so it has no graph.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a Keras model, got {type(model).__name__}")
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:
            raise UsageError(
                f"model {model.name!r} is not built: give it an Input layer or call it once"
            )
        return model._functional
    if not is_graph(model):
        raise UsageError(
            f"model {model.name!r} is a subclassed {type(model).__name__}, which has no graph "
            "to follow: build it with the functional API or as a Sequential model"
        )
    return model


def calls(model: keras.Model) -> Iterator[Call]:
    """Every call of one level of a model's graph, producers before consumers."""
    graph = functional(model)
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if not node.is_input:
                yield Call(node.operation, tuple(node.input_tensors), tuple(node.outputs))


def named_layers(model: keras.Model, prefix: str = "") -> dict[str, keras.Layer]:
    """Every layer that is not itself a graph, by its path.

    Args:
        model: a functional or built Sequential Keras model.
        prefix: what every path begins with.

    Returns:
        Layers in the order of the model. A layer inside a nested model is named `outer/inner`.
    """
    found: dict[str, keras.Layer] = {}
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            found.update(named_layers(layer, f"{path}/"))
        else:
            found[path] = layer
    return found


def copy(model: keras.Model) -> keras.Model:
    """An uncompiled copy with variables of its own, nested and shared layers included.

    `keras.models.clone_model` fails on nested models; the config round trip does not.

    Raises:
        UsageError: the model is one that `from_config` cannot make again.
    """
    functional(model)
    twin = from_config(model, model.get_config())
    twin.set_weights(model.get_weights())
    return twin


def from_config(model: keras.Model, config: dict[str, Any]) -> keras.Model:
    """A model like `model`, made from its config or an edited one.

    Keras finds custom classes and functions by their registered names; here the model is at hand,
    so its own are used, registered or not, lambdas included.

    Args:
        model: a functional or built Sequential Keras model.
        config: its `get_config()`, with changed numbers where wanted.

    Raises:
        UsageError: the class of the model has an `__init__` of its own, or a layer is shared
            between the model and one nested in it.
    """
    if "layers" not in config:
        raise UsageError(
            f"model {model.name!r} is a {type(model).__name__} whose config does not hold its "
            "graph: wrap it as keras.Model(model.inputs, model.outputs)"
        )
    known: dict[str, Any] = {}
    _own_objects(model, config, known)
    with keras.saving.custom_object_scope(known):
        twin = type(model).from_config(config)
    if len(twin.weights) != len(model.weights):
        raise UsageError(
            f"model {model.name!r} shares a layer with a model nested in it, which no config can "
            "say: give each its own layer"
        )
    return twin


def _own_objects(model: keras.Model, config: dict[str, Any], known: dict[str, Any]) -> None:
    """Collects what the layers of a model are made of; `config` then names its own functions."""
    members = {each.name: each for each in functional(model).operations}
    for entry in config["layers"]:
        inner = entry["config"]
        member = members.get(inner.get("name"))
        if member is None:
            continue
        known[type(member).__name__] = type(member)
        if is_graph(member):
            _own_objects(member, inner, known)
            continue
        for key, said in inner.items():
            value = getattr(member, key, None)
            # What a string names, such as `relu`, Keras finds by itself.
            if not isinstance(said, dict):
                continue
            if isinstance(value, FunctionType):
                name = f"{value.__name__} {len(known)}"
                known[name] = value
                inner[key] = {"class_name": "function", "config": name, "registered_name": name}
            elif said.get("class_name") == type(value).__name__:
                known[type(value).__name__] = type(value)


def compile_like(model: keras.Model, twin: keras.Model) -> None:
    """Compiles `twin` as `model` is, with an optimizer and metrics of its own."""

    def fresh(value: Any) -> Any:
        if isinstance(value, keras.Optimizer | keras.Metric):
            return type(value).from_config(value.get_config())
        return value

    if model.compiled:
        twin.compile(**keras.tree.map_structure(fresh, model._compile_config.config))


@dataclass(frozen=True)
class KernelUse:
    """One kernel multiplied at a number of positions.

    Attributes:
        layer: the layer that owns the kernel.
        kernel: the weight; each of its entries does one multiply-accumulate a position.
        positions: how often the whole kernel is applied for one example.
    """

    layer: keras.Layer
    kernel: keras.Variable
    positions: int


def _spatial(shape: tuple[int | None, ...], channel_axis: int) -> int:
    sizes = [size for axis, size in enumerate(shape) if axis not in (0, channel_axis % len(shape))]
    if any(size is None for size in sizes):
        raise UsageError(
            f"the tensor shape {tuple(shape)} is open, so its multiply-accumulates cannot be "
            "counted: give the model's Input a fixed shape"
        )
    return math.prod(sizes)  # type: ignore[arg-type]


def _channel_axis(layer: keras.Layer) -> int:
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1


def _at_outputs(*names: str) -> Callable[[Call], Iterator[KernelUse]]:
    def uses(call: Call) -> Iterator[KernelUse]:
        layer = call.operation
        positions = _spatial(call.outputs[0].shape, _channel_axis(layer))
        for name in names:
            yield KernelUse(layer, getattr(layer, name), positions)

    return uses


def _at_inputs(call: Call) -> Iterator[KernelUse]:
    layer = call.operation
    positions = _spatial(call.inputs[0].shape, _channel_axis(layer))
    yield KernelUse(layer, layer.kernel, positions)


_KERNEL_USES: dict[type, Callable[[Call], Iterator[KernelUse]]] = {
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


def kernel_uses(model: keras.Model) -> list[KernelUse]:
    """Every use of a kernel in a model, nested models included, a shared layer once a call.

    Layers of other types count as zero: normalisation, pooling, activations and additions are
    no multiply-accumulates by the convention of the pruning literature.

    Raises:
        UsageError: the model has no graph, or a spatial size is open.
    """
    uses: list[KernelUse] = []
    for call in calls(model):
        if is_graph(call.operation):
            uses.extend(kernel_uses(call.operation))
        elif rule := _KERNEL_USES.get(type(call.operation)):
            uses.extend(rule(call))
    return uses


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of one example through the convolutions and dense layers of a model.

    Args:
        model: a functional or built Sequential Keras model whose input sizes are fixed.

    Returns:
        The count, biases and normalisation left out, as in He et al. 2016 and Li et al. 2017.

    Raises:
        UsageError: the model is subclassed or not built, or a spatial size is open.
    """
    return sum(use.positions * math.prod(use.kernel.shape) for use in kernel_uses(model))
