"""Converts the config of a model that Keras 2 wrote to one that Keras 3 reads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras

from tfprune.errors import UsageError

# Modules that are searched for a class of Keras if a config names no module.
_HOMES = ("keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints")
_BY_KEY = {
    "_initializer": "keras.initializers",
    "_regularizer": "keras.regularizers",
    "_constraint": "keras.constraints",
}
_FUNCTIONAL = ("keras.src.models.functional", "Functional")
_MODELS = {
    "Functional": _FUNCTIONAL,
    "Model": _FUNCTIONAL,
    "Sequential": ("keras", "Sequential"),
}
_RENAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "BatchNormalizationV1": ("BatchNormalization", {}),
    "SyncBatchNormalization": ("BatchNormalization", {"synchronized": True}),
    "ThresholdedReLU": ("ReLU", {}),
}
_KEYS = {("LeakyReLU", "alpha"): "negative_slope", ("ThresholdedReLU", "theta"): "threshold"}
# Config entries that Keras 3 does not have, with the values that have no effect on what a finished
# model computes. `...` is any value; None and False have no effect for any entry.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (...,),
    "groups": (1,),
    "implementation": (...,),
    "input_dtype": (...,),
    "input_length": (...,),
    "input_shape": (...,),
    # Attention layers take these shapes from their inputs.
    "key_shape": (...,),
    "query_shape": (...,),
    "value_shape": (...,),
    "rng_type": (...,),
    "seed": (...,),
    # Only layers without weights, such as dropout, lack it in Keras 3.
    "trainable": (...,),
}
_OF_EVERY_LAYER = frozenset({"name", "dtype", "trainable", "activity_regularizer"})
# TensorFlow functions that may be called on Keras tensors, with their counterparts in Keras 3:
# operations of two arguments, and activations.
_OPERATIONS = "keras.src.ops.numpy"
_ARITHMETIC = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.subtract": "Subtract",
    "math.multiply": "Multiply",
    "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide",
}
_ACTIVATIONS = {
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.sigmoid": "sigmoid",
    "math.sigmoid": "sigmoid",
    "nn.silu": "silu",
    "nn.tanh": "tanh",
    "math.tanh": "tanh",
}
_RAW_OPS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "ClassMethod", "InstanceMethod")
_ADVICE = {
    "PruneLowMagnitude": "remove tfmot's wrappers with tfmot.sparsity.keras.strip_pruning, in "
    "tf_keras, and save it again",
    "QuantizeWrapper": "give the float model: tfmot's quantize wrappers have no counterpart here",
    "QuantizeWrapperV2": "give the float model: tfmot's quantize wrappers have no counterpart here",
    "ClusterWeights": "remove tfmot's wrappers with tfmot.clustering.keras.strip_clustering, in "
    "tf_keras, and save it again",
    **dict.fromkeys(
        _RAW_OPS,
        "it is a TensorFlow function that was called on a Keras tensor: write it as a layer "
        "(Rescaling, Add, ReLU, Reshape, ...) in Keras 2 and save again, or build the model in "
        "Keras 3 and give it the weights with load_weights",
    ),
}


def to_keras3(config: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the config of a model that Keras 2 wrote.

    Example:
        ```python
        config = {"class_name": "Sequential", "config": {"name": "net", "layers": []}}
        model = keras.saving.deserialize_keras_object(to_keras3(config))
        ```

    Entries that Keras 3 does not have are dropped if they have no effect, such as `groups=1` of a
    depthwise convolution. A model with an entry that has an effect is refused.

    Args:
        config: `class_name` and `config` of a Sequential or functional model, as an `.h5` or a
            `.keras` file holds them.

    Raises:
        UsageError: the config contains something that Keras 3 does not have; the message names the
            layer.
    """
    converted = _convert(dict(config), "", "")
    assert isinstance(converted, dict)
    return converted


def training_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Converts how a `.h5` file says that its model is compiled: metrics of Keras 2 have a name.

    Example:
        ```python
        training_config({"metrics": [{"class_name": "MeanMetricWrapper", "config": {"fn": "mse"}}]})
        # {"metrics": ["mse"]}
        ```

    Keras 3 reads the wrapper of a metric's function, and takes its name for the function.

    Args:
        config: the file's `training_config`.
    """
    converted: dict[str, Any] = _metric_names(dict(config))
    return converted


def _metric_names(value: Any) -> Any:
    if isinstance(value, list):
        return [_metric_names(each) for each in value]
    if not isinstance(value, dict):
        return value
    inner = value.get("config")
    if value.get("class_name") == "MeanMetricWrapper" and isinstance(inner, dict):
        function, name = inner.get("fn"), inner.get("name")
        if isinstance(function, str):
            # Keras chooses the accuracy by the loss, as it did when the file was written.
            usual = name in ("accuracy", "acc") and function.endswith("_accuracy")
            return name if usual else function
    return {key: _metric_names(each) for key, each in value.items()}


def named_classes(config: Any, layer: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Every entry of a config that names a class, with the name of the layer that holds it."""
    if isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config:
            own = inner.get("name") if isinstance(inner, dict) else None
            layer = str(own or config.get("name") or layer)
            yield config, layer
        for value in config.values():
            yield from named_classes(value, layer)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from named_classes(value, layer)


def is_of_keras(class_name: str) -> bool:
    """Whether Keras 3 has a model, layer, initializer, regularizer or constraint of this name."""
    return class_name in _MODELS or any(_class(home, class_name) for home in _HOMES)


def advice(class_name: str) -> str | None:
    """What a user can do about a class that no import provides; None if nothing is known."""
    return _ADVICE.get(class_name)


def is_code(config: Mapping[str, Any]) -> bool:
    """Whether a layer's config holds Python bytecode, which tfprune never runs."""
    inner = config.get("config")
    function = inner.get("function") if isinstance(inner, dict) else None
    if isinstance(function, dict):
        return function.get("class_name") == "__lambda__"
    return config.get("class_name") == "Lambda" and isinstance(function, list | tuple)


def _convert(value: Any, key: str, layer: str) -> Any:
    if isinstance(value, list | tuple):
        return [_convert(item, key, layer) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value or "config" not in value:
        return {name: _convert(item, name, layer) for name, item in value.items()}
    return _convert_object(value, key, layer)


def _convert_object(entry: dict[str, Any], key: str, layer: str) -> Any:
    name, inner = str(entry["class_name"]), entry["config"]
    if name == "function" or name.startswith("__") or entry.get("module") == _OPERATIONS:
        return entry
    if "Policy" in name:
        policy = inner["name"] if isinstance(inner, dict) else inner
        return _keras3_entry("keras", "DTypePolicy", {"name": policy}, entry)
    # Early versions of Keras 2 wrote the layers of a Sequential model as a bare list.
    if name == "Sequential" and isinstance(inner, list):
        inner = {"name": "sequential", "layers": inner}
    inner = dict(inner or {})
    if "layers" not in inner:
        layer = str(inner.get("name") or layer)
    if isinstance(inner.get("name"), str):
        inner["name"] = _without_slash(inner["name"])
    if is_code(entry):
        # The loader refuses bytecode of Keras 2 and of Keras 3 in one place.
        return entry
    if name in _MODELS and ("layers" in inner):
        if name == "Sequential":
            inner["layers"] = _add_input_layer(list(inner["layers"]))
        else:
            inner = _rename_layers(_count_calls_from_0(inner))
            names = {str(member.get("name")) for member in inner["layers"]}
            inner["layers"] = [
                _with_tensor_options(_convert_function(member), names) for member in inner["layers"]
            ]
        config = {option: _convert(value, option, layer) for option, value in inner.items()}
        return _keras3_entry(*_MODELS[name], config, entry)
    renamed, more = _RENAMED.get(name, (name, {}))
    module = _module(renamed, entry, key)
    if module is None:
        config = {option: _convert(value, option, layer) for option, value in inner.items()}
        return {**entry, "module": entry.get("module") or "custom", "config": config}
    config = {
        _KEYS.get((name, option), option): _convert(value, option, layer)
        for option, value in (inner | more).items()
    }
    return _keras3_entry(module, renamed, _known_entries(module, renamed, config, layer), entry)


def _keras3_entry(
    module: str, name: str, config: dict[str, Any], entry: dict[str, Any]
) -> dict[str, Any]:
    kept: dict[str, Any] = {key: entry[key] for key in ("name", "inbound_nodes") if key in entry}
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": None,
        **kept,
    }


def _add_input_layer(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds an input layer to a Sequential model whose first layer holds the input shape."""
    first = layers[0] if layers else {}
    shape = (first.get("config") or {}).get("batch_input_shape")
    if shape is None or first["class_name"] in ("InputLayer", *_MODELS):
        return layers
    config = {"batch_input_shape": shape, "name": f"{first['config'].get('name', 'first')}_input"}
    return [{"class_name": "InputLayer", "config": config}, *layers]


def _count_calls_from_0(config: dict[str, Any]) -> dict[str, Any]:
    """Renumbers the calls of nested models from 0, as Keras 3 does.

    In Keras 2, call 0 of a nested model with an input layer is its own graph.
    """
    nested = {
        str(layer.get("name"))
        for layer in config["layers"]
        if layer["class_name"] in _MODELS
        and [inner["class_name"] for inner in _layers(layer)[:1]] == ["InputLayer"]
    }

    def shifted(part: Any) -> Any:
        return _map_references(part, nested, lambda name, call: (name, call - 1))

    layers = [
        {**layer, "inbound_nodes": shifted(layer.get("inbound_nodes", []))}
        for layer in config["layers"]
    ]
    return {**config, "layers": layers, "output_layers": shifted(config["output_layers"])}


def _map_references(
    part: Any, names: Collection[str], change: Callable[[str, Any], tuple[str, Any]]
) -> Any:
    """A part of a config, in which each reference to an output of some layers is changed.

    Args:
        part: what may hold references, which are lists of the layer's name, the number of its call,
            the number of the output, and perhaps arguments.
        names: the layers that are meant.
        change: maps the name and the number of the call to those of the new reference.
    """
    if isinstance(part, dict):
        return {key: _map_references(item, names, change) for key, item in part.items()}
    if not isinstance(part, list):
        return part
    items = [_map_references(item, names, change) for item in part]
    if len(part) >= 3 and isinstance(part[0], str) and part[0] in names:
        return [*change(part[0], items[1]), *items[2:]]
    return items


def _without_slash(name: str) -> str:
    """A name without slashes, which Keras 3 reserves for paths."""
    return name.replace("/", "_")


def _rename_layers(config: dict[str, Any]) -> dict[str, Any]:
    """Gives the layers of a functional model names that Keras 3 accepts, also in references."""
    old = {str(layer.get("name")) for layer in config["layers"]}

    def renamed(part: Any) -> Any:
        return _map_references(part, old, lambda name, call: (_without_slash(name), call))

    layers = [
        {
            **layer,
            "name": _without_slash(str(layer.get("name"))),
            "inbound_nodes": renamed(layer.get("inbound_nodes", [])),
        }
        for layer in config["layers"]
    ]
    ends = {key: renamed(config[key]) for key in ("input_layers", "output_layers")}
    return {**config, "layers": layers, **ends}


def _convert_function(entry: dict[str, Any]) -> dict[str, Any]:
    """Converts a TensorFlow function to an operation of Keras 3 that computes the same, if any."""
    if entry["class_name"] != "TFOpLambda":
        return entry
    function, name = entry["config"].get("function"), entry.get("name")
    nodes = entry["inbound_nodes"]
    if function in _ACTIVATIONS and all(_has_one_argument(node) for node in nodes):
        config = {"name": name, "activation": _ACTIVATIONS[function]}
        plain = [[[*node[0][:3], {}] if _is_nested(node) else node[:3]] for node in nodes]
        return {**entry, "class_name": "Activation", "module": "keras.layers", "config": config} | {
            "inbound_nodes": plain
        }
    if function in _ARITHMETIC:
        # Keras 2 passes the second argument by name: `y`.
        return {
            "module": _OPERATIONS,
            "class_name": _ARITHMETIC[function],
            "config": {"name": name},
            "registered_name": None,
            "name": name,
            "inbound_nodes": [_two_arguments(node) for node in nodes],
        }
    return entry


def _is_nested(node: list[Any]) -> bool:
    return bool(node) and isinstance(node[0], list)


def _has_one_argument(node: list[Any]) -> bool:
    """Whether a call has one argument and no options."""
    call = node[0] if _is_nested(node) else node
    options = call[3] if len(call) > 3 else {}
    return (not _is_nested(node) or len(node) == 1) and not any(options.values())


def _two_arguments(node: list[Any]) -> dict[str, Any]:
    call = node[0] if _is_nested(node) else node
    options = dict(call[3]) if len(call) > 3 else {}
    other = options.pop("y", None)
    if isinstance(other, list) and len(other) == 3 and isinstance(other[0], str):
        other = _tensor(other)
    # For a number as the first operand, as in 1 - x, the layer's name is `_CONSTANT_VALUE`.
    first = call[2] if call[0] == "_CONSTANT_VALUE" else _tensor(call)
    return {"args": [first, other], "kwargs": {}}


def _tensor(reference: list[Any]) -> dict[str, Any]:
    """A reference to a tensor as Keras 3 writes it; Keras takes the shape from the call."""
    config = {"shape": [], "dtype": "float32", "keras_history": reference[:3]}
    return {"class_name": "__keras_tensor__", "config": config}


def _with_tensor_options(entry: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Converts tensors among the call options of a layer, such as attention's `value`."""

    def options(value: Any) -> Any:
        if isinstance(value, list) and len(value) >= 3 and value[0] in names:
            return _tensor(value)
        return value

    def call(node: Any) -> Any:
        if not isinstance(node, list) or not _is_nested(node) or len(node[0]) < 4:
            return node
        kwargs = {key: options(value) for key, value in node[-1][3].items()}
        if kwargs == node[-1][3]:
            return node
        tensors = [_tensor(reference) for reference in node]
        return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": kwargs}

    return {**entry, "inbound_nodes": [call(node) for node in entry.get("inbound_nodes", [])]}


def _layers(entry: dict[str, Any]) -> list[dict[str, Any]]:
    inner = entry["config"]
    return list(inner if isinstance(inner, list) else inner.get("layers", []))


def _module(name: str, entry: dict[str, Any], key: str) -> str | None:
    """The module of Keras 3 that has a class; None for a custom class."""
    if ">" in str(entry.get("registered_name") or name):
        return None
    module = str(entry.get("module") or "")
    by_key = next((home for end, home in _BY_KEY.items() if key.endswith(end)), None)
    foreign = module and module.partition(".")[0] not in ("keras", "tf_keras", "tensorflow")
    homes = () if foreign else (module, by_key, *_HOMES)
    return next((home for home in homes if home in _HOMES and _class(home, name)), None)


@functools.cache
def _class(module: str, name: str) -> Any:
    member = getattr(getattr(keras, module.partition(".")[2]), name, None)
    return member if isinstance(member, type) else None


def _known_entries(module: str, name: str, config: dict[str, Any], layer: str) -> dict[str, Any]:
    """The entries of a config that the constructor of a class of Keras 3 accepts.

    Raises:
        UsageError: another entry would change what the model computes.
    """
    if name == "InputLayer":
        shape = config.pop("batch_input_shape", None)
        if shape is not None:
            config["batch_shape"] = shape
    axis = config.get("axis")
    if name == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    known = _arguments(_class(module, name))
    kept = {key: value for key, value in config.items() if key in known}
    # A finished model does not use its initializers.
    weightless = module == "keras.initializers"
    for key, value in config.items():
        if key in known or weightless or key.endswith("_initializer"):
            continue
        harmless = _WITHOUT_EFFECT.get(key, ())
        if value is None or value is False or ... in harmless:
            continue
        # The types are compared too, since 1 equals True.
        if any(type(other) is type(value) and other == value for other in harmless):
            continue
        raise UsageError(
            f"layer {layer!r} is Keras 2's {name}({key}={value!r}), which Keras 3 does not have: "
            "build it from other layers in Keras 2 and save the model again"
        )
    return kept


@functools.cache
def _arguments(kind: type) -> frozenset[str]:
    names = set(_OF_EVERY_LAYER if issubclass(kind, keras.Layer) else ())
    for base in kind.__mro__:
        if base is keras.Layer:
            break
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters
            names |= set(parameters)
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                # Without **kwargs, it passes no other argument to its base.
                return frozenset(names - {"self", "args"} - (_OF_EVERY_LAYER - set(parameters)))
    return frozenset(names - {"self", "args", "kwargs"})
