"""A Keras model as a graph: its calls in order, its layers by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import keras

from tfprune.errors import UsageError
from tfprune.model.activations import means


@dataclass(frozen=True)
class Call:
    """One use of an operation in a graph.

    Attributes:
        operation: the layer, nested model or raw `keras.ops` operation that is called.
        inputs: the Keras tensors it reads, in the order of its arguments.
        outputs: the Keras tensors it returns.
        args: the positional arguments it was called with, tensors and others.
        kwargs: the arguments it was called with by name.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def own_code(layer_type: type, name: str) -> bool:
    """Whether a class, or one between it and Keras' own, defines a method itself."""
    home = next((each for each in layer_type.__mro__ if name in vars(each)), object)
    return home.__module__.partition(".")[0] != "keras"


def is_graph(operation: object) -> bool:
    """Whether `operation` is a model that computes what its graph says, and can be walked."""
    made = isinstance(operation, keras.Sequential) or hasattr(operation, "_nodes_by_depth")
    return made and not own_code(type(operation), "call")


def revives(model: keras.Model) -> bool:
    """Whether the class of a model can be made from the config of its graph."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    kinds = {each.kind for each in parameters}
    return not own_code(type(model), "__init__") or kinds >= {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }


def graph_at_each_step(operation: object) -> keras.Model | None:
    """The model with a graph that a `TimeDistributed` applies to each step, if it is one."""
    if isinstance(operation, keras.layers.TimeDistributed):
        inner: keras.Model = operation.layer
        if is_graph(inner) and revives(inner) and inner.built:
            return inner
    return None


def functional(model: keras.Model) -> Any:
    """The functional model behind `model`.

    Args:
        model: a functional or built Sequential Keras model.

    Raises:
        UsageError: the model is subclassed or not yet built, so it has no graph.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a Keras model, got {type(model).__name__}")
    if own_code(type(model), "call") and getattr(model, "inputs", None):
        raise UsageError(
            f"model {model.name!r} is a {type(model).__name__}, whose own `call` may compute "
            "something else than its graph: make keras.Model(inputs, outputs) of it"
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
    """Every call of one level of a model's graph, producers before consumers."""
    graph = functional(model)
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if not node.is_input:
                given = node.arguments
                yield Call(
                    node.operation,
                    tuple(node.input_tensors),
                    tuple(node.outputs),
                    tuple(given.args),
                    dict(given.kwargs),
                )


def named_layers(model: keras.Model, prefix: str = "") -> dict[str, keras.Layer]:
    """Every layer that is not itself a graph, by its path; also of those applied at each step.

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
        elif inner := graph_at_each_step(layer):
            found.update(named_layers(inner, f"{path}/{inner.name}/"))
        else:
            found[path] = layer
    return found


def named(path: str, pattern: str) -> bool:
    """Whether a name, a path or a glob of these means a layer or a model that it lies in.

    Args:
        path: of the layer, as in "backbone/conv_1".
        pattern: such as "backbone", "conv_1", "backbone/conv_1" or "conv*".
    """
    parts = path.split("/")
    paths = ("/".join(parts[: end + 1]) for end in range(len(parts)))
    return any(pattern == name or fnmatchcase(name, pattern) for name in (*parts, *paths))


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a classifier with one output gives probabilities; otherwise it gives logits."""
    last: Any = model
    while isinstance(last, keras.Model):
        # A functional model lists raw ops, such as `keras.ops.softmax`, among its operations only.
        last = getattr(last, "operations", last.layers)[-1]
    return type(last).__name__ == "Softmax" or means(getattr(last, "activation", None), "softmax")


def settle(model: keras.Model) -> None:
    """Lets layers that derive constants from their weights do so, after weights were set."""
    for layer in named_layers(model).values():
        # Normalization computes with copies of its mean and variance.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
