"""A Keras model as a graph: its calls in order, and its layers by path."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import keras

from tfprune.errors import UsageError
from tfprune.model.activations import is_activation, is_pointwise, mixes_channels

# Layers and operations after which softmaxes and sigmoids are still probabilities.
_PASSING = frozenset(
    {
        "Average",
        "AveragePooling1D",
        "AveragePooling2D",
        "AveragePooling3D",
        "Cast",
        "Clip",
        "Cropping1D",
        "Cropping2D",
        "Dropout",
        "ExpandDims",
        # Of `tfprune.quantize`, which builds on this module.
        "FakeQuantize",
        "Flatten",
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalAveragePooling3D",
        "Identity",
        "Permute",
        "Reshape",
        "Squeeze",
        "Transpose",
        "UpSampling1D",
        "UpSampling2D",
    }
)
# They choose among numbers, which are then still those of a sigmoid, but of no softmax.
_CHOOSING = frozenset(
    {
        "Concatenate",
        "GetItem",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "GlobalMaxPooling3D",
        "Max",
        "MaxPooling1D",
        "MaxPooling2D",
        "MaxPooling3D",
        "Maximum",
        "Mean",
        "Min",
        "Minimum",
        "RepeatVector",
        "Slice",
        "Split",
        "Stack",
        "Take",
        "Unstack",
    }
)
# They may give probabilities of a person's own making, or anything.
_OPAQUE = frozenset(
    {
        "Divide",
        "Exp",
        "FlaxLayer",
        "JaxLayer",
        "Lambda",
        "TFSMLayer",
        "TorchModuleWrapper",
        "TrueDivide",
    }
)


@dataclass(frozen=True)
class Call:
    """One use of an operation in a graph.

    Attributes:
        operation: the layer, nested model or raw `keras.ops` operation that is called.
        inputs: the Keras tensors it reads, in the order of its arguments.
        outputs: the Keras tensors it returns.
        args: the positional arguments of the call, tensors and others.
        kwargs: the keyword arguments of the call.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def overrides(layer_type: type, name: str) -> bool:
    """Whether a class or one of its bases outside Keras defines a method itself."""
    home = next((base for base in layer_type.__mro__ if name in vars(base)), object)
    return home.__module__.partition(".")[0] != "keras"


def is_graph(operation: object) -> bool:
    """Whether an operation is a model that computes exactly its graph.

    Example:
        ```python
        is_graph(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))  # True
        is_graph(keras.layers.Dense(2))  # False
        ```
    """
    has_nodes = isinstance(operation, keras.Sequential) or hasattr(operation, "_nodes_by_depth")
    return has_nodes and not overrides(type(operation), "call")


def has_graph_config(model: keras.Model) -> bool:
    """Whether the class of a model can be built from the config of its graph."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    kinds = {parameter.kind for parameter in parameters}
    return not overrides(type(model), "__init__") or kinds >= {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }


def graph_at_each_step(operation: object) -> keras.Model | None:
    """The model with a graph that a `TimeDistributed` layer applies to each step; else None."""
    if isinstance(operation, keras.layers.TimeDistributed):
        inner: keras.Model = operation.layer
        if is_graph(inner) and has_graph_config(inner) and inner.built:
            return inner
    return None


def functional(model: keras.Model) -> Any:
    """The functional model behind a model.

    Example:
        ```python
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        functional(model).operations  # the input layer and the Dense layer
        ```

    Args:
        model: a functional or built Sequential Keras model.

    Raises:
        UsageError: the model is subclassed or is not built, so it has no graph.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a Keras model, got {type(model).__name__}")
    if overrides(type(model), "call") and getattr(model, "inputs", None):
        raise UsageError(
            f"model {model.name!r} is a {type(model).__name__}, whose own `call` may compute "
            "something else than its graph: build keras.Model(inputs, outputs) from it"
        )
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:
            raise UsageError(
                f"model {model.name!r} is not built: begin it with keras.Input(shape), or call it "
                "once on data"
            )
        return model._functional
    if not is_graph(model):
        raise UsageError(
            f"model {model.name!r} is a subclassed {type(model).__name__}, which has no graph "
            "to follow: build it with the functional API or as a Sequential model"
        )
    return model


def calls(model: keras.Model) -> Iterator[Call]:
    """Every call in a model's graph, producers before consumers.

    Example:
        ```python
        for call in calls(model):
            print(call.operation.name, [tensor.shape for tensor in call.inputs])
        ```

    A nested model is one call; `calls` of the nested model gives the calls inside it.

    Args:
        model: a functional or built Sequential Keras model.

    Raises:
        UsageError: the model has no graph.
    """
    graph = functional(model)
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if not node.is_input:
                arguments = node.arguments
                yield Call(
                    node.operation,
                    tuple(node.input_tensors),
                    tuple(node.outputs),
                    tuple(arguments.args),
                    dict(arguments.kwargs),
                )


def named_layers(model: keras.Model, prefix: str = "") -> dict[str, keras.Layer]:
    """The layers of a model and of the models nested in it, by path.

    Example:
        ```python
        list(named_layers(model))  # ["image", "backbone/conv_1", "backbone/conv_2", "logits"]
        ```

    Args:
        model: a functional or built Sequential Keras model.
        prefix: the beginning of every path.

    Returns:
        Layers in the order of the model. A layer inside a nested model, or inside a model that
        `TimeDistributed` applies to each step, has the path `outer/inner`. Nested models themselves
        are left out.
    """
    layers: dict[str, keras.Layer] = {}
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            layers.update(named_layers(layer, f"{path}/"))
        elif inner := graph_at_each_step(layer):
            layers.update(named_layers(inner, f"{path}/{inner.name}/"))
        else:
            layers[path] = layer
    return layers


def path_matches(path: str, pattern: str) -> bool:
    """Whether a pattern selects a layer, or a nested model that contains the layer.

    Example:
        ```python
        path_matches("backbone/conv_1", "conv*")  # True
        path_matches("backbone/conv_1", "backbone")  # True
        ```

    Args:
        path: the path of the layer, as in "backbone/conv_1".
        pattern: a name, a path or a glob: "backbone", "conv_1", "backbone/conv_1" or "conv*".
    """
    parts = path.split("/")
    paths = ("/".join(parts[: end + 1]) for end in range(len(parts)))
    return any(pattern == name or fnmatchcase(name, pattern) for name in (*parts, *paths))


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a classifier with one output returns probabilities; otherwise it returns logits."""
    last: Any = model
    while isinstance(last, keras.Model):
        # Raw operations, such as `keras.ops.softmax`, are in `operations` and not in `layers`.
        operations = getattr(last, "operations", last.layers)
        last = next(each for each in reversed(operations) if type(each).__name__ != "FakeQuantize")
    return type(last).__name__ == "Softmax" or is_activation(
        getattr(last, "activation", None), "softmax"
    )


def output_activation(tensor: Any) -> str | None:
    """What the numbers of a model's output are, as far as its last operation tells.

    Example:
        ```python
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
        output_activation(model.outputs[0])  # "sigmoid"
        ```

    Args:
        tensor: one of a model's `outputs`.

    Returns:
        "softmax" or "sigmoid" for probabilities; "none" for numbers of any range, such as logits;
        None where the last operation is neither Keras' nor TensorFlow's, or computes with
        probabilities, such as `1 - p`.
    """
    operation, node, place = tensor._keras_history
    if isinstance(operation, keras.Model):
        followed = getattr(operation, "outputs", None) and not overrides(type(operation), "call")
        return output_activation(operation.outputs[place]) if followed else None
    inputs = operation._inbound_nodes[node].input_tensors
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    name = type(operation).__name__
    linear = name == "Activation" and is_activation(operation.activation, "linear")
    if linear or name in _PASSING or name in _CHOOSING:
        return _of_inputs(inputs, {"sigmoid"} if name in _CHOOSING else {"sigmoid", "softmax"})
    activation = getattr(operation, "activation", None)
    names = (name.lower(), type(activation).__name__.lower())
    for kind, spellings in _PROBABILITIES.items():
        plain = {spelling.replace("_", "") for spelling in spellings}
        if plain & set(names) or is_activation(activation, *spellings):
            return kind
    if activation is None:
        if not type(operation).__module__.startswith("keras.") or name in _OPAQUE:
            return None
        # What has weights gives numbers of any range; a sum or product depends on its terms.
        return "none" if getattr(operation, "weights", ()) else _of_inputs(inputs, set())
    return "none" if is_pointwise(activation) or mixes_channels(activation) else None


_PROBABILITIES = {"softmax": ("softmax",), "sigmoid": ("sigmoid", "hard_sigmoid", "sparse_sigmoid")}


def _of_inputs(inputs: Sequence[Any], kept: Collection[str]) -> str | None:
    """What is left of the activations of some tensors, of which an operation keeps these."""
    found = {output_activation(each) for each in inputs}
    if "none" in found or not found:
        return "none"
    only = found.pop()
    return only if not found and only in kept else None


def finalize_states(model: keras.Model) -> None:
    """Calls `finalize_state` of all layers that have one, after weights were assigned.

    Example:
        ```python
        model.set_weights(weights)
        finalize_states(model)
        ```
    """
    for layer in named_layers(model).values():
        # Normalization computes with copies of its mean and variance.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
