"""Mixed precision: a model computes its training steps in 16 bits, and its weights stay float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import keras

from tfprune.errors import TfpruneError, UsageError
from tfprune.model.graph import is_graph

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]

# Pixels and the columns of tables have more digits than 16 bits hold: they are scaled first.
_SCALING = (keras.layers.Normalization, keras.layers.Rescaling)


@contextmanager
def mixed_precision(model: keras.Model, precision: Precision) -> Iterator[None]:
    """Lets a model compute its training steps under a dtype policy within the context.

    Example:
        ```python
        model.compile("adam", "mse")
        with mixed_precision(model, "mixed_bfloat16"):
            model.fit(x, y)
        ```

    The layers have the policy only while Keras traces a training step. Weights, gradients of
    weights and the optimizer are float32, and so is each evaluation: the validation figures are
    those of the float32 model that is left. Layers that give the outputs of the model, and layers
    that scale its inputs (`Normalization`, `Rescaling`), compute in float32. So do layers that
    have another policy than "float32".

    For "mixed_float16" the optimizer must be a `keras.optimizers.LossScaleOptimizer`, since small
    gradients are 0 in float16.

    Args:
        model: a compiled model; changed within the context only.
        precision: "float32" changes nothing.

    Raises:
        UsageError: in the first training step, if a layer cannot compute in 16 bits.

    Source:
        Micikevicius et al. 2018, Mixed Precision Training, https://arxiv.org/abs/1710.03740.
    """
    if precision == "float32":
        yield
        return
    policy = keras.DTypePolicy(precision)
    switched = {layer: layer.dtype_policy for layer in _computing(model)}
    own = model.train_step

    def train_step(data: Any) -> Any:
        try:
            for layer in switched:
                layer.dtype_policy = policy
            return own(data)
        except TfpruneError:
            raise
        # The code of a layer may raise anything.
        except Exception as error:
            raise UsageError(
                f"model {model.name!r} cannot be trained with precision = {precision!r} "
                f"({_first_line(error)}): leave precision out"
            ) from error
        finally:
            for layer, former in switched.items():
                layer.dtype_policy = former

    # A step that was traced before computes in float32.
    model.train_step, model.train_function = train_step, None
    try:
        yield
    finally:
        del model.train_step
        model.train_function = None


def _computing(model: keras.Model) -> list[keras.Layer]:
    """The layers that compute in 16 bits."""
    exact = {id(layer) for layer in _exact(model)}
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if id(layer) not in exact
        and not is_graph(layer)
        and type(layer.dtype_policy) is keras.DTypePolicy
        and layer.dtype_policy.name == "float32"
    ]


def _exact(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers that compute in float32, with the layers inside them."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, _SCALING):
            yield layer
    for layer in _last_layers(model.outputs):
        yield from layer._flatten_layers()


def _last_layers(outputs: list[keras.KerasTensor]) -> Iterator[keras.Layer]:
    """The layers that give tensors, directly or through raw operations."""
    waiting, seen = list(outputs), set()
    while waiting:
        tensor = waiting.pop()
        history = getattr(tensor, "_keras_history", None)
        if history is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation = history.operation
        if is_graph(operation):
            waiting += operation.outputs
        elif isinstance(operation, keras.Layer) and type(operation).__name__ != "FakeQuantize":
            yield operation
        else:
            # Raw operations, and layers of `tfprune.quantize` that round what another one gives.
            read = operation._inbound_nodes[history.node_index].input_tensors
            waiting += read[:1] if isinstance(operation, keras.Layer) else read


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
