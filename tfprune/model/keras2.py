"""What Keras 2 wrote of a model, said as Keras 3 reads it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tfprune.errors import UsageError

# Where a class of Keras is looked for, when a config names no module.
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
# Entries that Keras 3 has no more, with the values under which they change nothing that a finished
# model computes; None and False, "switched off", are among them for each. `...` is any value.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (...,),
    "groups": (1,),
    "implementation": (...,),
    "input_dtype": (...,),
    "input_length": (...,),
    "input_shape": (...,),
    # Of attention: the shapes are those of its inputs.
    "key_shape": (...,),
    "query_shape": (...,),
    "value_shape": (...,),
    "rng_type": (...,),
    "seed": (...,),
    # Only of layers without weights, such as dropout.
    "trainable": (...,),
}
_OF_EVERY_LAYER = frozenset({"name", "dtype", "trainable", "activity_regularizer"})
# TensorFlow functions called on Keras tensors, and the same of Keras 3: operations of two
# arguments, and activations.
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
    "PruneLowMagnitude": "take tfmot's wrappers off with tfmot.sparsity.keras.strip_pruning, in "
    "tf_keras, and save it again",
    "QuantizeWrapper": "give the float model: tfmot's quantize wrappers have no counterpart here",
    "QuantizeWrapperV2": "give the float model: tfmot's quantize wrappers have no counterpart here",
    "ClusterWeights": "take tfmot's wrappers off with tfmot.clustering.keras.strip_clustering, in "
    "tf_keras, and save it again",
    **dict.fromkeys(
        _RAW_OPS,
        "it is a TensorFlow function that was called on a Keras tensor: write it as a layer "
        "(Rescaling, Add, ReLU, Reshape, ...) in Keras 2 and save again, or build the model in "
        "Keras 3 and give it the weights with load_weights",
    ),
}


def modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model that Keras 2 wrote, as Keras 3 reads it.

    Entries that Keras 3 no longer knows go where they have no effect, such as `groups=1` of a
    depthwise convolution; where they have one, or a class is gone, the model is refused.

    Args:
        config: `class_name` and `config` of a Sequential or functional model, of an `.h5` or of a
            `.keras` file.

    Raises:
        UsageError: it holds what Keras 3 does not have; the message names the layer.
    """
    found = _modern(dict(config), "", "")
    assert isinstance(found, dict)
    return found


def named_classes(config: Any, layer: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Every object that a config names by its class, with the layer that holds it."""
    if isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config:
            own = inner.get("name") if isinstance(inner, dict) else None
            layer = str(own or config.get("name") or layer)
            yield config, layer
        for each in config.values():
            yield from named_classes(each, layer)
    elif isinstance(config, list | tuple):
        for each in config:
            yield from named_classes(each, layer)


def is_of_keras(class_name: str) -> bool:
    """Whether Keras 3 has a layer, a model, or what a layer is configured with, of this name."""
    return class_name in _MODELS or any(_class(home, class_name) for home in _HOMES)


def advice(class_name: str) -> str | None:
    """What to do about a class that no import brings, or None."""
    return _ADVICE.get(class_name)


def is_code(config: Mapping[str, Any]) -> bool:
    """Whether what a config says of a layer is Python bytecode, which nothing here runs."""
    inner = config.get("config")
    function = inner.get("function") if isinstance(inner, dict) else None
    if isinstance(function, dict):
        return function.get("class_name") == "__lambda__"
    return config.get("class_name") == "Lambda" and isinstance(function, list | tuple)


def _modern(value: Any, key: str, layer: str) -> Any:
    if isinstance(value, list | tuple):
        return [_modern(each, key, layer) for each in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value or "config" not in value:
        return {name: _modern(each, name, layer) for name, each in value.items()}
    return _object(value, key, layer)


def _object(entry: dict[str, Any], key: str, layer: str) -> Any:
    name, inner = str(entry["class_name"]), entry["config"]
    if name == "function" or name.startswith("__") or entry.get("module") == _OPERATIONS:
        return entry
    if "Policy" in name:
        policy = inner["name"] if isinstance(inner, dict) else inner
        return _said("keras", "DTypePolicy", {"name": policy}, entry)
    # The first Keras 2 wrote the layers of a Sequential as a bare list.
    if name == "Sequential" and isinstance(inner, list):
        inner = {"name": "sequential", "layers": inner}
    inner = dict(inner or {})
    if "layers" not in inner:
        layer = str(inner.get("name") or layer)
    if isinstance(inner.get("name"), str):
        inner["name"] = _name(inner["name"])
    if is_code(entry):
        # Told apart later, beside the same of Keras 3.
        return entry
    if name in _MODELS and ("layers" in inner):
        if name == "Sequential":
            inner["layers"] = _with_input(list(inner["layers"]))
        else:
            inner = _renamed_layers(_counted_from_0(inner))
            names = {str(each.get("name")) for each in inner["layers"]}
            inner["layers"] = [_called(_operation(each), names) for each in inner["layers"]]
        config = {each: _modern(part, each, layer) for each, part in inner.items()}
        return _said(*_MODELS[name], config, entry)
    renamed, more = _RENAMED.get(name, (name, {}))
    module = _module(renamed, entry, key)
    if module is None:
        config = {each: _modern(part, each, layer) for each, part in inner.items()}
        return {**entry, "module": entry.get("module") or "custom", "config": config}
    config = {
        _KEYS.get((name, each), each): _modern(part, each, layer)
        for each, part in (inner | more).items()
    }
    return _said(module, renamed, _taken(module, renamed, config, layer), entry)


def _said(module: str, name: str, config: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: entry[key] for key in ("name", "inbound_nodes") if key in entry}
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": None,
        **kept,
    }


def _with_input(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Layers of a Sequential that begins with an input, where the first one told its shape."""
    first = layers[0] if layers else {}
    shape = (first.get("config") or {}).get("batch_input_shape")
    if shape is None or first["class_name"] in ("InputLayer", *_MODELS):
        return layers
    config = {"batch_input_shape": shape, "name": f"{first['config'].get('name', 'first')}_input"}
    return [{"class_name": "InputLayer", "config": config}, *layers]


def _counted_from_0(config: dict[str, Any]) -> dict[str, Any]:
    """The calls of a functional model with nested ones counted as Keras 3 does.

    In Keras 2 a model that begins with an input has its own graph as call 0.
    """
    nested = {
        str(each.get("name"))
        for each in config["layers"]
        if each["class_name"] in _MODELS
        and [inner["class_name"] for inner in _layers(each)[:1]] == ["InputLayer"]
    }

    def shifted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shifted(each) for key, each in value.items()}
        if not isinstance(value, list):
            return value
        if len(value) >= 3 and isinstance(value[0], str) and value[0] in nested:
            return [value[0], value[1] - 1, *map(shifted, value[2:])]
        return [shifted(each) for each in value]

    layers = [
        {**each, "inbound_nodes": shifted(each.get("inbound_nodes", []))}
        for each in config["layers"]
    ]
    return {**config, "layers": layers, "output_layers": shifted(config["output_layers"])}


def _name(given: str) -> str:
    """A name without the slash that Keras 3 keeps for paths."""
    return given.replace("/", "_")


def _renamed_layers(config: dict[str, Any]) -> dict[str, Any]:
    """A functional model whose layers, and what refers to them, have names that Keras 3 takes."""
    old = {str(each.get("name")) for each in config["layers"]}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(each) for key, each in value.items()}
        if not isinstance(value, list):
            return value
        if len(value) >= 3 and isinstance(value[0], str) and value[0] in old:
            return [_name(value[0]), *map(renamed, value[1:])]
        return [renamed(each) for each in value]

    layers = [
        {
            **each,
            "name": _name(str(each.get("name"))),
            "inbound_nodes": renamed(each.get("inbound_nodes", [])),
        }
        for each in config["layers"]
    ]
    ends = {key: renamed(config[key]) for key in ("input_layers", "output_layers")}
    return {**config, "layers": layers, **ends}


def _operation(entry: dict[str, Any]) -> dict[str, Any]:
    """A TensorFlow function as an operation of Keras 3, where there is the same."""
    if entry["class_name"] != "TFOpLambda":
        return entry
    function, name = entry["config"].get("function"), entry.get("name")
    nodes = entry["inbound_nodes"]
    if function in _ACTIVATIONS and all(_first_alone(node) for node in nodes):
        config = {"name": name, "activation": _ACTIVATIONS[function]}
        plain = [[[*node[0][:3], {}] if _nested(node) else node[:3]] for node in nodes]
        return {**entry, "class_name": "Activation", "module": "keras.layers", "config": config} | {
            "inbound_nodes": plain
        }
    if function in _ARITHMETIC:
        # The second argument came by name: `y`.
        return {
            "module": _OPERATIONS,
            "class_name": _ARITHMETIC[function],
            "config": {"name": name},
            "registered_name": None,
            "name": name,
            "inbound_nodes": [_two_arguments(node) for node in nodes],
        }
    return entry


def _nested(node: list[Any]) -> bool:
    return bool(node) and isinstance(node[0], list)


def _first_alone(node: list[Any]) -> bool:
    """Whether a call has one argument and no options."""
    call = node[0] if _nested(node) else node
    options = call[3] if len(call) > 3 else {}
    return (not _nested(node) or len(node) == 1) and not any(options.values())


def _two_arguments(node: list[Any]) -> dict[str, Any]:
    call = node[0] if _nested(node) else node
    options = dict(call[3]) if len(call) > 3 else {}
    other = options.pop("y", None)
    if isinstance(other, list) and len(other) == 3 and isinstance(other[0], str):
        other = _tensor(other)
    # A number before the sign, as in 1 - x, stands where a layer's name is: `_CONSTANT_VALUE`.
    first = call[2] if call[0] == "_CONSTANT_VALUE" else _tensor(call)
    return {"args": [first, other], "kwargs": {}}


def _tensor(reference: list[Any]) -> dict[str, Any]:
    """A tensor as a call of Keras 3 names it; its shape is that of the call."""
    config = {"shape": [], "dtype": "float32", "keras_history": reference[:3]}
    return {"class_name": "__keras_tensor__", "config": config}


def _called(entry: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """A layer whose calls name tensors among their options, such as attention's `value`."""

    def options(value: Any) -> Any:
        if isinstance(value, list) and len(value) >= 3 and value[0] in names:
            return _tensor(value)
        return value

    def call(node: Any) -> Any:
        if not isinstance(node, list) or not _nested(node) or len(node[0]) < 4:
            return node
        given = {key: options(value) for key, value in node[-1][3].items()}
        if given == node[-1][3]:
            return node
        tensors = [_tensor(each) for each in node]
        return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": given}

    return {**entry, "inbound_nodes": [call(node) for node in entry.get("inbound_nodes", [])]}


def _layers(entry: dict[str, Any]) -> list[dict[str, Any]]:
    inner = entry["config"]
    return list(inner if isinstance(inner, list) else inner.get("layers", []))


def _module(name: str, entry: dict[str, Any], key: str) -> str | None:
    """Which module of Keras 3 has a class; None for a class of the user's own."""
    if ">" in str(entry.get("registered_name") or name):
        return None
    given = str(entry.get("module") or "")
    by_key = next((home for end, home in _BY_KEY.items() if key.endswith(end)), None)
    foreign = given and given.partition(".")[0] not in ("keras", "tf_keras", "tensorflow")
    homes = () if foreign else (given, by_key, *_HOMES)
    return next((home for home in homes if home in _HOMES and _class(home, name)), None)


@functools.cache
def _class(module: str, name: str) -> Any:
    found = getattr(getattr(keras, module.partition(".")[2]), name, None)
    return found if isinstance(found, type) else None


def _taken(module: str, name: str, config: dict[str, Any], layer: str) -> dict[str, Any]:
    """The entries of a config that a class of Keras 3 takes."""
    if name == "InputLayer":
        shape = config.pop("batch_input_shape", None)
        if shape is not None:
            config["batch_shape"] = shape
    axis = config.get("axis")
    if name == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    known = _arguments(_class(module, name))
    kept = {key: value for key, value in config.items() if key in known}
    # How weights began says nothing of what they are.
    weightless = module == "keras.initializers"
    for key, value in config.items():
        if key in known or weightless or key.endswith("_initializer"):
            continue
        harmless = _WITHOUT_EFFECT.get(key, ())
        # Not `in`: 1 equals True.
        if value is None or value is False or ... in harmless:
            continue
        if any(type(each) is type(value) and each == value for each in harmless):
            continue
        raise UsageError(
            f"layer {layer!r} is Keras 2's {name}({key}={value!r}), which Keras 3 does not have: "
            "build it of other layers in Keras 2 and save the model again"
        )
    return kept


@functools.cache
def _arguments(kind: type) -> frozenset[str]:
    names = set(_OF_EVERY_LAYER if issubclass(kind, keras.Layer) else ())
    for each in kind.__mro__:
        if each is keras.Layer:
            break
        if "__init__" in vars(each):
            parameters = inspect.signature(vars(each)["__init__"]).parameters
            names |= set(parameters)
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                # What its base would take does not get there.
                return frozenset(names - {"self", "args"} - (_OF_EVERY_LAYER - set(parameters)))
    return frozenset(names - {"self", "args", "kwargs"})
