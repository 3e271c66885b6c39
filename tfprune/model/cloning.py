"""Rebuilds a Keras model from its config, with exactly the functions and classes that it holds.

A config stores functions and classes by name, and Keras looks the names up: a user's own `relu`, or
`ops.gelu`, would come back as the function of `keras.activations` with this name. Therefore each
function that is not in `keras.activations` gets a unique name while the config is written, and this
name refers to the same object when the config is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model.graph import finalize_states, functional, has_graph_config, is_graph, overrides

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)
# Functions that Keras finds again under the name that it writes.
_KERAS_FINDS = {
    id(value)
    for name, value in vars(keras.activations).items()
    if isinstance(value, FunctionType) and value.__name__ == name
}
# Attributes of a layer that have no part in what it computes.
_BOOKKEEPING = {"_inbound_nodes", "_outbound_nodes", "_tracker", "_metrics", "_losses"}
_PLAIN_MODEL = {
    "module": "keras.models",
    "class_name": "Model",
    "registered_name": None,
}


@dataclass(frozen=True)
class ModelConfig:
    """The config of a model, and the objects that the names in it refer to.

    Attributes:
        config: as `model.get_config()` returns it; callers may edit it. A nested model whose class
            has its own `__init__` is in it as a plain functional model.
        objects: functions and classes by the names that the config uses.
        model_class: the class whose `from_config` reads the config.
    """

    config: dict[str, Any]
    objects: Mapping[str, Any]
    model_class: type[keras.Model]


def config_of(model: keras.Model) -> ModelConfig:
    """The config of a model.

    Example:
        ```python
        model_config = config_of(model)
        model_config.config["layers"][1]["config"]["filters"] = 8
        narrow = from_config(model, model_config)
        ```

    Args:
        model: a functional or built Sequential Keras model, nested to any depth.

    Raises:
        UsageError: the model has no graph, or one of its layers has no config.
    """
    functional(model)
    known: dict[str, Any] = {}
    try:
        with _unique_names(model, known):
            config = _graph_config(model)
    except UsageError:
        raise
    # A user's get_config may raise anything.
    except Exception as error:
        raise UsageError(
            f"model {model.name!r} has no config to rebuild it from ({_first_line(error)}): "
            "let get_config of its layers return all arguments of their constructors"
        ) from error
    _register_graph_classes(model, config, known)
    return ModelConfig(config, known, type(model) if has_graph_config(model) else keras.Model)


def from_config(model: keras.Model, model_config: ModelConfig) -> keras.Model:
    """Builds a model like `model` from its config, which may have been edited.

    Example:
        ```python
        twin = from_config(model, config_of(model))  # same layers, new weights
        ```

    Args:
        model: the model that the config was taken from.
        model_config: the result of `config_of(model)`, with changed numbers if wanted.

    Returns:
        A model of the same class with the same names and new weights. A class with its own
        `__init__`, such as those of keras_hub, comes back as a plain functional `keras.Model`.

    Raises:
        UsageError: a model and one nested in it share a layer, weights are outside the graph, or a
            layer comes back with another function than it holds.
    """
    try:
        with keras.saving.custom_object_scope(dict(model_config.objects)):
            twin = model_config.model_class.from_config(model_config.config)
    # A user's constructor may raise anything.
    except Exception as error:
        raise UsageError(
            f"model {model.name!r} cannot be rebuilt from its config ({_cause(error)}): let "
            "get_config of its layers return all arguments of their constructors"
        ) from error
    _keep_names(model, twin)
    ours: dict[int, keras.Variable] = {}
    theirs: set[int] = set()
    for old, new in matching_layers(model, twin):
        _check_same(old, new)
        if isinstance(old, keras.Layer):
            if len(old.weights) != len(new.weights):
                raise UsageError(
                    f"layer {old.name!r} has {len(old.weights)} weights and comes back from its "
                    f"config with {len(new.weights)}: let its get_config and build make them all"
                )
            ours |= {id(weight): weight for weight in old.weights}
            theirs |= {id(weight) for weight in new.weights}
    if len(ours) != len(theirs):
        raise UsageError(
            f"model {model.name!r} shares a layer with a model nested in it, which a config "
            "cannot express: give each its own layer"
        )
    outside = [weight.path for weight in model.weights if id(weight) not in ours]
    if outside:
        raise UsageError(
            f"model {model.name!r} has weights outside its graph, such as {outside[0]}: "
            "use the layer in the graph, or do not store it on the model"
        )
    return twin


def _keep_names(model: keras.Model, twin: keras.Model) -> None:
    """Restores the names of layers whose config does not contain their name."""
    ours = {operation.name: operation for operation in functional(model).operations}
    theirs = {operation.name: operation for operation in functional(twin).operations}
    unnamed = [operation for name, operation in ours.items() if name not in theirs]
    new_names = [operation for name, operation in theirs.items() if name not in ours]
    for old, new in zip(unnamed, new_names, strict=True):
        if type(old) is not type(new):
            raise UsageError(
                f"layer {old.name!r} comes back from its config with another name: "
                "let its get_config and from_config keep the name"
            )
        new.name = old.name
    theirs = {operation.name: operation for operation in functional(twin).operations}
    for name, old in ours.items():
        if is_graph(old):
            _keep_names(old, theirs[name])


def matching_layers(
    model: keras.Model, twin: keras.Model
) -> Iterator[tuple[keras.Operation, keras.Operation]]:
    """Pairs each layer and raw operation of a model, nested ones too, with that of a twin."""
    ours = {operation.name for operation in functional(model).operations}
    others = {operation.name: operation for operation in functional(twin).operations}
    # Keras may number the layers of a model inside a layer anew; their order is the same.
    renamed = iter([operation for name, operation in others.items() if name not in ours])
    for operation in functional(model).operations:
        other = others[operation.name] if operation.name in others else next(renamed)
        if is_graph(operation):
            yield from matching_layers(operation, other)
        else:
            yield operation, other


def copy_weights(
    model: keras.Model,
    twin: keras.Model,
    change: Callable[[keras.Variable], np.ndarray] = keras.ops.convert_to_numpy,
) -> None:
    """Copies the weights of a model to a twin.

    Example:
        ```python
        twin = from_config(model, config_of(model))
        copy_weights(model, twin)
        ```

    Args:
        model: the source of the weights.
        twin: the result of `from_config`; changed in place.
        change: maps each variable of the model to the array that the twin gets.
    """
    for old, new in matching_layers(model, twin):
        if isinstance(old, keras.Layer):
            for mine, other in zip(old.weights, new.weights, strict=True):
                other.assign(change(mine))
    finalize_states(twin)


def copy(model: keras.Model) -> keras.Model:
    """An uncompiled copy of a model, with nested and shared layers.

    Example:
        ```python
        twin = copy(model)
        twin.layers[1].kernel is model.layers[1].kernel  # False
        ```

    `keras.models.clone_model` fails on some nested models; a rebuild from the config does not.

    Raises:
        UsageError: as `from_config`.
    """
    twin = from_config(model, config_of(model))
    copy_weights(model, twin)
    return twin


def compile_like(model: keras.Model, twin: keras.Model) -> None:
    """Compiles `twin` like `model`, with a new optimizer and new metrics.

    Example:
        ```python
        twin = copy(model)
        compile_like(model, twin)
        ```
    """
    if model.compiled:
        twin.compile(**keras.tree.map_structure(fresh_copy, model._compile_config.config))


def fresh_copy(value: Any) -> Any:
    """A new optimizer or metric from the config of another one; any other value as it is.

    Example:
        ```python
        fresh_copy(keras.metrics.MeanAbsoluteError("mae")).name  # "mae"
        ```
    """
    if not isinstance(value, keras.Optimizer | keras.Metric):
        return value
    if type(value) is keras.metrics.MeanMetricWrapper:
        # Keras would read the name of the metric as the registered function of this name.
        return type(value)(value._fn, value.name, value.dtype, **value._fn_kwargs)
    known: dict[str, Any] = {}
    with _unique_names_in(value, known):
        config = value.get_config()
    for key, entry in config.items():
        _register_classes(_attribute(value, key), entry, known)
    with keras.saving.custom_object_scope(known):
        return type(value).from_config(config)


def _attribute(value: Any, key: str) -> Any:
    """The attribute of an object that belongs to a key of its config."""
    # The property `learning_rate` of an optimizer evaluates its schedule.
    return getattr(value, f"_{key}", None) if key == "learning_rate" else getattr(value, key, None)


def layer_entries(
    model: keras.Model, config: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], keras.Operation]]:
    """Pairs each layer entry in the config of a model with its operation; nested models are one.

    Example:
        ```python
        for entry, layer in layer_entries(model, model.get_config()):
            print(layer.name, entry["class_name"])
        ```
    """
    operations = functional(model).operations
    members = {operation.name: operation for operation in operations}
    for index, entry in enumerate(config["layers"]):
        # The config of a custom layer may lack its name.
        name = entry.get("name") or entry["config"].get("name")
        in_order = operations[index] if len(operations) == len(config["layers"]) else None
        member = members.get(name, in_order)
        if member is not None:
            yield entry, member


# -- configs of graphs --------------------------------------------------------------------------


def _graph_config(model: keras.Model) -> dict[str, Any]:
    if has_graph_config(model):
        return dict(model.get_config())
    graph = functional(model)
    plain = keras.Model(graph._inputs_struct, graph._outputs_struct, name=model.name)
    return {**plain.get_config(), "trainable": model.trainable}


# -- names --------------------------------------------------------------------------------------


@contextmanager
def _unique_names(model: keras.Model, known: dict[str, Any]) -> Iterator[None]:
    """Gives the functions in a model's layers unique names within the context.

    Args:
        model: its layers hold stand-ins within the context.
        known: receives the functions by their unique names.
    """
    undo: list[Callable[[], Any]] = []
    seen: set[int] = set()
    try:
        _replace_in_graph(model, known, undo, seen)
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _replace_in_graph(
    model: keras.Model, known: dict[str, Any], undo: list[Callable[[], Any]], seen: set[int]
) -> None:
    for operation in functional(model).operations:
        if is_graph(operation):
            _replace_in_graph(operation, known, undo, seen)
            if not has_graph_config(operation):
                vars(operation)["get_config"] = functools.partial(_graph_config, operation)
                undo.append(functools.partial(vars(operation).pop, "get_config"))
            continue
        if isinstance(operation, keras.Layer) and not _round_trips(operation):
            vars(operation)["get_config"] = functools.partial(_constructor_arguments, operation)
            undo.append(functools.partial(vars(operation).pop, "get_config"))
        _replace_functions(operation, known, undo, seen)


def _round_trips(layer: keras.Layer) -> bool:
    """Whether a layer can be rebuilt from its config; each layer of Keras can.

    For other layers, Keras may have recorded the arguments of the constructor instead.
    """
    if not overrides(type(layer), "get_config") or getattr(layer, "_auto_config", None) is None:
        return True
    try:
        type(layer).from_config(layer.get_config())
    # A user's code may raise anything.
    except Exception:
        return False
    return True


def _constructor_arguments(layer: keras.Layer) -> dict[str, Any]:
    arguments = layer._auto_config.serialize()
    return {**arguments, "name": layer.name}


@contextmanager
def _unique_names_in(value: Any, known: dict[str, Any]) -> Iterator[None]:
    undo: list[Callable[[], Any]] = []
    try:
        _replace_functions(value, known, undo, set())
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _replace_functions(
    holder: Any, known: dict[str, Any], undo: list[Callable[[], Any]], seen: set[int]
) -> None:
    """Replaces the functions that an object holds by stand-ins with unique names."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    entries = holder if isinstance(holder, dict | list) else vars(holder)
    for key, value in list(entries.items() if isinstance(entries, dict) else enumerate(entries)):
        # Keras itself shadows methods by instance attributes, such as a wrapped `build`.
        if entries is not holder and (
            key in _BOOKKEEPING or callable(getattr(type(holder), key, None))
        ):
            continue
        replaced = value
        if _is_function(value):
            replaced = _stand_in(value, known)
        elif isinstance(value, tuple) and any(map(_is_function, value)):
            replaced = tuple(_stand_in(v, known) if _is_function(v) else v for v in value)
        elif is_graph(value) and key != "_functional":
            _replace_in_graph(value, known, undo, seen)
        elif isinstance(value, dict | list) or _has_config(value):
            _replace_functions(value, known, undo, seen)
        elif type(value).__name__ == "SerializableDict":
            # Keras' record of the constructor's arguments, for a layer without a get_config.
            _replace_functions(value.config, known, undo, seen)
        if replaced is not value:
            entries[key] = replaced
            undo.append(functools.partial(entries.__setitem__, key, value))


def _is_function(value: Any) -> bool:
    # A class that a layer holds, such as the type of its norm, is stored by name too.
    is_stored_by_name = isinstance(value, (*_FUNCTIONS, type)) or _is_callable_object(value)
    return is_stored_by_name and id(value) not in _KERAS_FINDS


def _has_config(value: Any) -> bool:
    """Whether a value is an instance of a class that Keras serialises, other than a model."""
    return (
        hasattr(value, "get_config")
        and hasattr(value, "__dict__")
        and not isinstance(value, type)
        and not is_graph(value)
    )


def _is_callable_object(value: Any) -> bool:
    """Whether a value is an object that is called like a function and has no config."""
    return callable(value) and not isinstance(value, type) and not hasattr(value, "get_config")


def _unique_name(value: Any, known: dict[str, Any]) -> str:
    """Registers a class or function under a unique name, since two may have the same name."""
    name = f"{getattr(value, '__name__', type(value).__name__)} {len(known)}"
    known[name] = value
    return name


def _stand_in(value: Any, known: dict[str, Any]) -> Callable[..., Any]:
    def stand_in(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a model is used while its config is written")

    stand_in.__name__ = stand_in.__qualname__ = _unique_name(value, known)
    return stand_in


def _register_graph_classes(
    model: keras.Model, config: dict[str, Any], known: dict[str, Any]
) -> None:
    """Registers the custom classes of a model's layers, and writes their names into `config`."""
    for entry, member in layer_entries(model, config):
        if is_graph(member) and not has_graph_config(member):
            entry |= _PLAIN_MODEL
            _register_graph_classes(member, entry["config"], known)
            continue
        _register_classes(member, entry, known)


def _register_classes(value: Any, config: Any, known: dict[str, Any]) -> None:
    """Registers the custom classes of an object and its parts, and writes them into its config."""
    if isinstance(config, list | tuple) and isinstance(value, list | tuple):
        for inner, entry in zip(value, config, strict=False):
            _register_classes(inner, entry, known)
    if not isinstance(config, dict) or config.get("class_name") != type(value).__name__:
        return
    if isinstance(value, _FUNCTIONS):
        return
    # Keras finds its own classes by module. The name alone does not tell a layer from a raw
    # operation, as with `layers.Add` and `ops.add`.
    if type(value).__module__.partition(".")[0] != "keras":
        config["registered_name"] = _unique_name(type(value), known)
    inner = config.get("config")
    if is_graph(value):
        if isinstance(inner, dict) and "layers" in inner:
            _register_graph_classes(value, inner, known)
    elif isinstance(inner, dict):
        for key, entry in inner.items():
            _register_classes(_attribute(value, key), entry, known)


# -- checks -------------------------------------------------------------------------------------


def _check_same(old: keras.Operation, new: keras.Operation) -> None:
    """Refuses a layer whose twin holds another function."""
    for path, mine, other in _differences(old, new, set()):
        raise UsageError(
            f"layer {old.name!r} holds {_qualified_name(mine)} as {path.lstrip('.')!r}, and its "
            f"config gives {_qualified_name(other)}: let its get_config and from_config keep it"
        )


def _differences(mine: Any, other: Any, seen: set[int]) -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, one, other) for each function that differs between two objects."""
    if id(mine) in seen or other is None or mine is other:
        return
    seen.add(id(mine))
    if isinstance(mine, _FUNCTIONS) or _is_callable_object(mine):
        if not _same_function(mine, other):
            yield "", mine, other
    elif isinstance(mine, list | tuple) and isinstance(other, list | tuple):
        for index, (one, another) in enumerate(zip(mine, other, strict=False)):
            yield from _differences_below(f"[{index}]", one, another, seen)
    elif isinstance(mine, dict) and isinstance(other, dict):
        for key in mine.keys() & other.keys():
            yield from _differences_below(f"[{key!r}]", mine[key], other[key], seen)
    elif is_graph(mine) and is_graph(other) and getattr(mine, "built", False):
        for one, another in matching_layers(mine, other):
            yield from _differences_below(f".{one.name}", one, another, seen)
    elif isinstance(mine, keras.initializers.Initializer):
        # The weights exist by now, and an initializer that holds an array may have been resized.
        return
    elif _has_config(mine):
        if type(mine) is not type(other):
            yield "", mine, other
        for key in vars(mine).keys() & getattr(other, "__dict__", {}).keys() - _BOOKKEEPING:
            # Keras itself shadows methods by instance attributes, such as a wrapped `build`.
            if not callable(getattr(type(mine), key, None)):
                yield from _differences_below(f".{key}", vars(mine)[key], vars(other)[key], seen)


def _differences_below(
    step: str, mine: Any, other: Any, seen: set[int]
) -> Iterator[tuple[str, Any, Any]]:
    for path, one, another in _differences(mine, other, seen):
        yield f"{step}{path}", one, another


def _same_function(mine: Any, other: Any) -> bool:
    if type(mine) is not type(other):
        return False
    if isinstance(mine, functools.partial):
        same_arguments = mine.args == other.args and mine.keywords == other.keywords
        return same_arguments and _same_function(mine.func, other.func)
    if isinstance(mine, MethodType):
        return mine.__func__ is other.__func__
    if isinstance(mine, FunctionType):
        # A closure that a layer creates refers to this layer, so the twin has another object.
        return mine.__code__ is other.__code__
    return not isinstance(mine, BuiltinFunctionType)


def _qualified_name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _cause(error: BaseException) -> str:
    """The error of a constructor, which Keras' message contains after the whole config."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Exception encountered: ")]
    return (causes or lines or [type(error).__name__])[-1][:200]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
