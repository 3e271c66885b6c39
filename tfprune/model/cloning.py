"""Makes a Keras model again from its config, of the very functions and classes that it holds.

A config names functions and classes, and Keras looks names up: one's own `relu`, or `ops.gelu`,
would come back as the function of `keras.activations` that is called so. Here everything that is
not Keras' own activation gets a name of its own while the config is written, and that name stands
for the object at hand when the config is read.
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
from tfprune.model.graph import functional, is_graph, own_code, revives, settle

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)
# What Keras finds again under the name that it writes.
_KERAS_FINDS = {
    id(value)
    for name, value in vars(keras.activations).items()
    if isinstance(value, FunctionType) and value.__name__ == name
}
# How a call belongs to its neighbours is not part of what it computes.
_SKIPPED = {"_inbound_nodes", "_outbound_nodes", "_tracker", "_metrics", "_losses"}
_PLAIN = {
    "module": "keras.models",
    "class_name": "Model",
    "registered_name": None,
}


@dataclass(frozen=True)
class ModelConfig:
    """A config, and what the names in it stand for.

    Attributes:
        config: as `model.get_config()` gives it, to be edited; a nested model whose class has an
            `__init__` of its own is in it as a plain functional model.
        objects: the functions and classes that the config names, by these names.
        made: the class that reads it.
    """

    config: dict[str, Any]
    objects: Mapping[str, Any]
    made: type[keras.Model]


def config_of(model: keras.Model) -> ModelConfig:
    """The config of a model.

    Args:
        model: a functional or built Sequential Keras model, nested to any depth.

    Raises:
        UsageError: the model has no graph, or a layer of it has no config.
    """
    functional(model)
    known: dict[str, Any] = {}
    try:
        with _named(model, known):
            config = _graph_config(model)
    except UsageError:
        raise
    # A layer's get_config raises what it likes.
    except Exception as error:
        raise UsageError(
            f"model {model.name!r} has no config that it could be made again from "
            f"({_first_line(error)}): give its layers a get_config that holds what they are made of"
        ) from error
    _own_classes(model, config, known)
    return ModelConfig(config, known, type(model) if revives(model) else keras.Model)


def from_config(model: keras.Model, found: ModelConfig) -> keras.Model:
    """A model like `model`, made from its config or an edited one; its weights are new.

    Args:
        model: what the config was taken from.
        found: its `config_of`, with changed numbers where wanted.

    Returns:
        A model of the same class with the same names. A class with an `__init__` of its own, as
        keras_hub's, comes back as a plain functional `keras.Model`.

    Raises:
        UsageError: a layer is shared between the model and one nested in it, weights lie outside
            the graph, or a layer came back with another function than it holds.
    """
    try:
        with keras.saving.custom_object_scope(dict(found.objects)):
            twin = found.made.from_config(found.config)
    # A layer's constructor raises what it likes.
    except Exception as error:
        raise UsageError(
            f"model {model.name!r} cannot be made again from its config ({_cause(error)}): give "
            "its layers a get_config that holds what they are made of"
        ) from error
    _keep_names(model, twin)
    ours: dict[int, keras.Variable] = {}
    theirs: set[int] = set()
    for old, new in pairs(model, twin):
        _check_same(old, new)
        if isinstance(old, keras.Layer):
            if len(old.weights) != len(new.weights):
                raise UsageError(
                    f"layer {old.name!r} has {len(old.weights)} weights and comes back from its "
                    f"config with {len(new.weights)}: let its get_config and build make them all"
                )
            ours |= {id(each): each for each in old.weights}
            theirs |= {id(each) for each in new.weights}
    if len(ours) != len(theirs):
        raise UsageError(
            f"model {model.name!r} shares a layer with a model nested in it, which no config can "
            "say: give each its own layer"
        )
    outside = [each.path for each in model.weights if id(each) not in ours]
    if outside:
        raise UsageError(
            f"model {model.name!r} has weights outside its graph, such as {outside[0]}: "
            "use the layer in the graph, or do not store it on the model"
        )
    return twin


def _keep_names(model: keras.Model, twin: keras.Model) -> None:
    """Gives layers that forget their names in their config the names of the original."""
    ours = {each.name: each for each in functional(model).operations}
    theirs = {each.name: each for each in functional(twin).operations}
    lost = [each for name, each in ours.items() if name not in theirs]
    found = [each for name, each in theirs.items() if name not in ours]
    for old, new in zip(lost, found, strict=True):
        if type(old) is not type(new):
            raise UsageError(
                f"layer {old.name!r} comes back from its config as another one: "
                "let its get_config and from_config keep the name"
            )
        new.name = old.name
    theirs = {each.name: each for each in functional(twin).operations}
    for name, old in ours.items():
        if is_graph(old):
            _keep_names(old, theirs[name])


def pairs(
    model: keras.Model, twin: keras.Model
) -> Iterator[tuple[keras.Operation, keras.Operation]]:
    """Each layer and raw operation of a model with its counterpart in a twin, nested ones too."""
    ours = {each.name for each in functional(model).operations}
    others = {each.name: each for each in functional(twin).operations}
    # A model inside a layer may get names by count; its order is the same.
    renamed = iter([each for name, each in others.items() if name not in ours])
    for operation in functional(model).operations:
        other = others[operation.name] if operation.name in others else next(renamed)
        if is_graph(operation):
            yield from pairs(operation, other)
        else:
            yield operation, other


def transfer(
    model: keras.Model,
    twin: keras.Model,
    change: Callable[[keras.Variable], np.ndarray] = keras.ops.convert_to_numpy,
) -> None:
    """Gives a twin the weights of a model.

    Args:
        model: where they come from.
        twin: from `from_config`.
        change: what to make of each weight.
    """
    for old, new in pairs(model, twin):
        if isinstance(old, keras.Layer):
            for mine, other in zip(old.weights, new.weights, strict=True):
                other.assign(change(mine))
    settle(twin)


def copy(model: keras.Model) -> keras.Model:
    """An uncompiled copy with variables of its own, nested and shared layers included.

    `keras.models.clone_model` fails on nested models; the config round trip does not.

    Raises:
        UsageError: as `from_config`.
    """
    twin = from_config(model, config_of(model))
    transfer(model, twin)
    return twin


def compile_like(model: keras.Model, twin: keras.Model) -> None:
    """Compiles `twin` as `model` is, with an optimizer and metrics of its own."""
    if model.compiled:
        twin.compile(**keras.tree.map_structure(_fresh, model._compile_config.config))


def _fresh(value: Any) -> Any:
    """A new optimizer or metric like another one, which has state; anything else as it is."""
    if not isinstance(value, keras.Optimizer | keras.Metric):
        return value
    known: dict[str, Any] = {}
    with _named_in(value, known):
        config = value.get_config()
    for key, said in config.items():
        _own(_attribute(value, key), said, known)
    with keras.saving.custom_object_scope(known):
        return type(value).from_config(config)


def _attribute(value: Any, key: str) -> Any:
    """What an object holds under a key of its config."""
    # An optimizer makes a number of its schedule where it is asked for its learning rate.
    return getattr(value, f"_{key}", None) if key == "learning_rate" else getattr(value, key, None)


def entries(
    model: keras.Model, config: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], keras.Operation]]:
    """Each entry of the config of one level of a model, with the operation it is about."""
    operations = functional(model).operations
    members = {each.name: each for each in operations}
    for index, entry in enumerate(config["layers"]):
        # A layer without a get_config of its own may leave its name out.
        name = entry.get("name") or entry["config"].get("name")
        in_order = operations[index] if len(operations) == len(config["layers"]) else None
        member = members.get(name, in_order)
        if member is not None:
            yield entry, member


# -- configs of graphs --------------------------------------------------------------------------


def _graph_config(model: keras.Model) -> dict[str, Any]:
    if revives(model):
        return dict(model.get_config())
    graph = functional(model)
    plain = keras.Model(graph._inputs_struct, graph._outputs_struct, name=model.name)
    return {**plain.get_config(), "trainable": model.trainable}


# -- names --------------------------------------------------------------------------------------


@contextmanager
def _named(model: keras.Model, known: dict[str, Any]) -> Iterator[None]:
    """While it lasts, the functions that a model's layers hold have names of their own.

    Args:
        model: its layers hold stand-ins meanwhile.
        known: is given the functions by their names.
    """
    undo: list[Callable[[], Any]] = []
    seen: set[int] = set()
    try:
        _name_graph(model, known, undo, seen)
        yield
    finally:
        for each in reversed(undo):
            each()


def _name_graph(
    model: keras.Model, known: dict[str, Any], undo: list[Callable[[], Any]], seen: set[int]
) -> None:
    for operation in functional(model).operations:
        if is_graph(operation):
            _name_graph(operation, known, undo, seen)
            if not revives(operation):
                vars(operation)["get_config"] = functools.partial(_graph_config, operation)
                undo.append(functools.partial(vars(operation).pop, "get_config"))
            continue
        if isinstance(operation, keras.Layer) and not _round_trips(operation):
            vars(operation)["get_config"] = functools.partial(_constructor_arguments, operation)
            undo.append(functools.partial(vars(operation).pop, "get_config"))
        _stand_in(operation, known, undo, seen)


def _round_trips(layer: keras.Layer) -> bool:
    """Whether a layer's config makes it again; of Keras' own layers it does.

    Where it does not, and Keras recorded what the constructor was given, that is used instead.
    """
    if not own_code(type(layer), "get_config") or getattr(layer, "_auto_config", None) is None:
        return True
    try:
        type(layer).from_config(layer.get_config())
    # A layer's own code raises what it likes.
    except Exception:
        return False
    return True


def _constructor_arguments(layer: keras.Layer) -> dict[str, Any]:
    arguments = layer._auto_config.serialize()
    return {**arguments, "name": layer.name}


@contextmanager
def _named_in(value: Any, known: dict[str, Any]) -> Iterator[None]:
    undo: list[Callable[[], Any]] = []
    try:
        _stand_in(value, known, undo, set())
        yield
    finally:
        for each in reversed(undo):
            each()


def _stand_in(
    holder: Any, known: dict[str, Any], undo: list[Callable[[], Any]], seen: set[int]
) -> None:
    """Puts functions of names of their own in the place of those that an object holds."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    entries = holder if isinstance(holder, dict | list) else vars(holder)
    for key, value in list(entries.items() if isinstance(entries, dict) else enumerate(entries)):
        # What shadows a method was put there by Keras, such as a wrapped `build`.
        if entries is not holder and (
            key in _SKIPPED or callable(getattr(type(holder), key, None))
        ):
            continue
        replaced = value
        if _is_function(value):
            replaced = _called_alone(value, known)
        elif isinstance(value, tuple) and any(map(_is_function, value)):
            replaced = tuple(_called_alone(v, known) if _is_function(v) else v for v in value)
        elif is_graph(value) and key != "_functional":
            _name_graph(value, known, undo, seen)
        elif isinstance(value, dict | list) or _has_config(value):
            _stand_in(value, known, undo, seen)
        elif type(value).__name__ == "SerializableDict":
            # The arguments of the constructor, for a layer without a get_config.
            _stand_in(value.config, known, undo, seen)
        if replaced is not value:
            entries[key] = replaced
            undo.append(functools.partial(entries.__setitem__, key, value))


def _is_function(value: Any) -> bool:
    # A class that a layer was given, such as that of its norm, has no config either.
    found = isinstance(value, (*_FUNCTIONS, type)) or _is_callable_object(value)
    return found and id(value) not in _KERAS_FINDS


def _has_config(value: Any) -> bool:
    """Whether it is an instance of a class that Keras serialises, other than a whole model."""
    return (
        hasattr(value, "get_config")
        and hasattr(value, "__dict__")
        and not isinstance(value, type)
        and not is_graph(value)
    )


def _is_callable_object(value: Any) -> bool:
    """Whether it is called like a function and has no config."""
    return callable(value) and not isinstance(value, type) and not hasattr(value, "get_config")


def _own_name(value: Any, known: dict[str, Any]) -> str:
    """A name of its own for a class or function, since two of them may be called alike."""
    name = f"{getattr(value, '__name__', type(value).__name__)} {len(known)}"
    known[name] = value
    return name


def _called_alone(value: Any, known: dict[str, Any]) -> Callable[..., Any]:
    def stand_in(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a model is used while its config is written")

    stand_in.__name__ = stand_in.__qualname__ = _own_name(value, known)
    return stand_in


def _own_classes(model: keras.Model, config: dict[str, Any], known: dict[str, Any]) -> None:
    """Collects the classes of a model's layers; `config` then names its own ones."""
    for entry, member in entries(model, config):
        if is_graph(member) and not revives(member):
            entry |= _PLAIN
            _own_classes(member, entry["config"], known)
            continue
        _own(member, entry, known)


def _own(value: Any, said: Any, known: dict[str, Any]) -> None:
    """Lets what a config says of an object name the very class of it, and of what it holds."""
    if isinstance(said, list | tuple) and isinstance(value, list | tuple):
        for inner, entry in zip(value, said, strict=False):
            _own(inner, entry, known)
    if not isinstance(said, dict) or said.get("class_name") != type(value).__name__:
        return
    if isinstance(value, _FUNCTIONS):
        return
    # Keras finds its own classes by their modules. By a bare name a layer and a raw operation, such
    # as `layers.Add` and `ops.add`, would stand for each other.
    if type(value).__module__.partition(".")[0] != "keras":
        said["registered_name"] = _own_name(type(value), known)
    inner = said.get("config")
    if is_graph(value):
        if isinstance(inner, dict) and "layers" in inner:
            _own_classes(value, inner, known)
    elif isinstance(inner, dict):
        for key, entry in inner.items():
            _own(_attribute(value, key), entry, known)


# -- checks -------------------------------------------------------------------------------------


def _check_same(old: keras.Operation, new: keras.Operation) -> None:
    """Refuses a twin that computes with another function than the original."""
    for path, mine, other in _differences(old, new, set()):
        raise UsageError(
            f"layer {old.name!r} holds {_called(mine)} as {path.lstrip('.')!r}, and its config "
            f"gives {_called(other)}: let its get_config and from_config keep what it was given"
        )


def _differences(mine: Any, other: Any, seen: set[int]) -> Iterator[tuple[str, Any, Any]]:
    """Where two objects, or what they hold, compute differently: (path, one, other)."""
    if id(mine) in seen or other is None or mine is other:
        return
    seen.add(id(mine))
    if isinstance(mine, _FUNCTIONS) or _is_callable_object(mine):
        if not _same_function(mine, other):
            yield "", mine, other
    elif isinstance(mine, list | tuple) and isinstance(other, list | tuple):
        for index, (one, another) in enumerate(zip(mine, other, strict=False)):
            yield from _below(f"[{index}]", one, another, seen)
    elif isinstance(mine, dict) and isinstance(other, dict):
        for key in mine.keys() & other.keys():
            yield from _below(f"[{key!r}]", mine[key], other[key], seen)
    elif is_graph(mine) and is_graph(other) and getattr(mine, "built", False):
        for one, another in pairs(mine, other):
            yield from _below(f".{one.name}", one, another, seen)
    elif isinstance(mine, keras.initializers.Initializer):
        # The weights are there by now; an array would have another shape.
        return
    elif _has_config(mine):
        if type(mine) is not type(other):
            yield "", mine, other
        for key in vars(mine).keys() & getattr(other, "__dict__", {}).keys() - _SKIPPED:
            # What shadows a method was put there by Keras, such as a wrapped `build`.
            if not callable(getattr(type(mine), key, None)):
                yield from _below(f".{key}", vars(mine)[key], vars(other)[key], seen)


def _below(step: str, mine: Any, other: Any, seen: set[int]) -> Iterator[tuple[str, Any, Any]]:
    for path, one, another in _differences(mine, other, seen):
        yield f"{step}{path}", one, another


def _same_function(mine: Any, other: Any) -> bool:
    if type(mine) is not type(other):
        return False
    if isinstance(mine, functools.partial):
        given = mine.args == other.args and mine.keywords == other.keywords
        return given and _same_function(mine.func, other.func)
    if isinstance(mine, MethodType):
        return mine.__func__ is other.__func__
    if isinstance(mine, FunctionType):
        # One that a layer makes for itself refers to that layer.
        return mine.__code__ is other.__code__
    return not isinstance(mine, BuiltinFunctionType)


def _called(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _cause(error: BaseException) -> str:
    """What went wrong in a constructor; Keras puts it last, behind the whole config."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Exception encountered: ")]
    return (told or lines or [type(error).__name__])[-1][:200]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
