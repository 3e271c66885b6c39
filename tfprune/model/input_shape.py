"""Models that leave sizes open, such as the height of their images: the same model with fixed ones.

Some formats, the count of multiply-accumulates, and devices need every size of an input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from tfprune.errors import UsageError, did_you_mean
from tfprune.model.cloning import (
    compile_like,
    config_of,
    copy_weights,
    from_config,
    layer_entries,
)
from tfprune.model.graph import calls, functional, is_graph
from tfprune.model.reference import InputShape

# Batch included; None where a size is open.
_Shape = tuple[int | None, ...]


def fix_input_shape(model: keras.Model, input_shape: InputShape) -> keras.Model:
    """The same model with fixed sizes where its inputs leave them open.

    Example:
        ```python
        fix_input_shape(model, (224, 224, 3))
        fix_input_shape(model, {"photo": (224, 224, 3), "sound": (16000,)})
        ```

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        input_shape: the shape of one example, without the batch; for several inputs the shapes by
            their names, where an input may be left out. Sizes that the model fixes must be the
            same.

    Returns:
        A model with the same names, weights and outputs, which takes examples of these sizes only;
        models nested in it take the sizes that they are called with. The model itself if nothing
        is open.

    Raises:
        UsageError: the shape does not fit the model, or the model has no graph.
    """
    wanted = _wanted(model, input_shape)
    if all(tuple(x.shape) == wanted[x.name] for x in model.inputs):
        return model
    # By the path of the nested model; the model itself has the empty path.
    shapes: dict[tuple[str, ...], list[_Shape]] = {
        (): [wanted[x.name] for x in functional(model).inputs]
    }
    while True:
        found = config_of(model)
        _write(model, found.config, shapes, ())
        twin = from_config(
            model, dataclasses.replace(found, config=_without_build_configs(found.config))
        )
        inner = {path: fixed for path, fixed in _called_with(twin, ()) if path not in shapes}
        if not inner:
            break
        shapes |= inner
    copy_weights(model, twin)
    compile_like(model, twin)
    return twin


def open_inputs(model: keras.Model) -> dict[str, _Shape]:
    """The inputs of a model with an open size: their shapes of one example, by their names.

    Example:
        ```python
        open_inputs(model)  # {"image": (None, None, 3)}
        ```
    """
    ends = ((x.name, tuple(x.shape[1:])) for x in model.inputs)
    return {name: shape for name, shape in ends if None in shape}


def _wanted(model: keras.Model, input_shape: InputShape) -> dict[str, _Shape]:
    """The shape of each input of the model, batch included."""
    inputs = {x.name: tuple(x.shape) for x in functional(model).inputs}
    if isinstance(input_shape, Mapping):
        given = {name: tuple(shape) for name, shape in input_shape.items()}
        if len(inputs) == len(given) == 1:
            given = dict(zip(inputs, given.values(), strict=True))
        for name in given:
            if name not in inputs:
                raise UsageError(
                    f"input_shape: model {model.name!r} has no input {name!r}: "
                    f"{did_you_mean(name, inputs)}"
                )
    elif len(inputs) > 1:
        raise UsageError(
            f"input_shape: model {model.name!r} has the inputs {', '.join(inputs)}: give a shape "
            "for each by its name"
        )
    else:
        given = dict.fromkeys(inputs, tuple(input_shape))
    for name, shape in given.items():
        known = inputs[name][1:]
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise UsageError(f"input_shape {shape} of {name!r} must be whole numbers above 0")
        fits = len(shape) == len(known) and all(
            want in (None, size) for want, size in zip(known, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"input_shape {shape} does not fit input {name!r} of model {model.name!r}: it "
                f"takes {known}"
            )
        inputs[name] = (inputs[name][0], *shape)
    return inputs


def _write(
    model: keras.Model,
    config: dict[str, Any],
    shapes: Mapping[tuple[str, ...], Sequence[_Shape]],
    path: tuple[str, ...],
) -> None:
    """Writes shapes into the config of a model, and of those nested in it."""
    ours = {
        x._keras_history.operation.name: shape
        for x, shape in zip(functional(model).inputs, shapes.get(path, ()), strict=False)
    }
    if "build_input_shape" in config and len(ours) == 1:
        config["build_input_shape"] = next(iter(ours.values()))
    for entry, member in layer_entries(model, config):
        if isinstance(member, keras.layers.InputLayer) and member.name in ours:
            entry["config"]["batch_shape"] = ours[member.name]
        elif is_graph(member):
            _write(member, entry["config"], shapes, (*path, member.name))


def _called_with(
    model: keras.Model, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[_Shape]]]:
    """The shapes that nested models with open sizes are called with, if all their calls agree."""
    called: dict[str, list[list[_Shape]]] = {}
    nested: dict[str, keras.Model] = {}
    for call in calls(model):
        if is_graph(call.operation):
            nested[call.operation.name] = call.operation
            shapes = [tuple(x.shape) for x in call.inputs]
            called.setdefault(call.operation.name, []).append(shapes)
    for name, inner in nested.items():
        below = (*path, name)
        first, *others = called[name]
        own = [tuple(x.shape) for x in functional(inner).inputs]
        fixed = [(mine[0], *shape[1:]) for mine, shape in zip(own, first, strict=True)]
        if all(other == first for other in others) and fixed != own:
            yield below, fixed
        else:
            yield from _called_with(inner, below)


def _without_build_configs(config: Any) -> Any:
    """A config whose layers are built by their calls, and not for the open sizes of before."""
    if isinstance(config, dict):
        built = "class_name" in config
        return {
            key: _without_build_configs(value)
            for key, value in config.items()
            if not (built and key == "build_config")
        }
    if isinstance(config, list | tuple):
        return type(config)(_without_build_configs(value) for value in config)
    return config
