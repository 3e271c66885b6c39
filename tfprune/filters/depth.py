"""Removes whole residual blocks: branches that add nothing but zeros, with all that feeds them.

The channels of a residual stage go together, since every block adds to the same ones. So a branch
that learnt to be zero frees no channel; it shows in the value of what it brings to the addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers
from keras.src.ops.numpy import Add

from tfprune.filters.channels import Trace
from tfprune.filters.rules import follow
from tfprune.model.cloning import compile_like, copy
from tfprune.model.graph import Call, calls, functional, is_graph, named_layers

ADDITIONS = (layers.Add, Add)


def remove_dead_blocks(model: keras.Model) -> keras.Model:
    """Rebuilds a model without the branches that add zero for every input.

    Example:
        ```python
        shallow = remove_dead_blocks(model)
        removed_layers(model, shallow)  # ["block2_conv1", "block2_conv2", "block2_add"]
        ```

    Each addition (`layers.Add`, `ops.add`, `x + y`) loses the operands that its weights prove to be
    zero: a branch that ends in a BatchNorm whose gamma and beta are zero, or in a convolution
    without a live weight. Where one operand is left it takes the place of the sum, and every
    layer that then feeds nothing is gone. So a ResNet-20 with one dead block has 18 layers.

    Args:
        model: a functional or built Sequential Keras model, nested to any depth; it is not changed.

    Returns:
        An ordinary Keras model of the same class, with the same inputs and outputs and their
        names; at inference the outputs are the same for inputs that overflow nowhere. An addition
        that is itself an output becomes an `Identity` of its name. Compiled like the original
        where that was compiled. `removed_layers` tells what went.

    Raises:
        UsageError: a model without a graph, or one that no config can make again.

    Source:
        Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks, section 3.2, "depth".
    """
    # Rewiring calls the layers once more, which only a copy may hear of.
    twin = copy(model)
    rewired = _rewired(twin, {})
    if rewired is not twin:
        # What is left of the first calls would make `layer.output` ambiguous.
        twin = copy(rewired)
    compile_like(model, twin)
    return twin


def removed_layers(model: keras.Model, slim: keras.Model) -> list[str]:
    """The paths of the layers of `model` that `slim` no longer has, in the order of the model."""
    left = named_layers(slim)
    return [path for path in named_layers(model) if path not in left]


def _rewired(model: keras.Model, known: dict[int, keras.Model]) -> keras.Model:
    """The model without dead branches, out of the same layers; itself where it has none.

    Args:
        model: one level of a model.
        known: what became of the nested models met so far, by their ids; it grows.
    """
    graph = functional(model)
    for operation in graph.operations:
        if is_graph(operation) and id(operation) not in known:
            known[id(operation)] = _rewired(operation, known)
    new = [known.get(id(operation), operation) for operation in graph.operations]
    zero = _zeros(model)
    outputs = {id(tensor) for tensor in graph.outputs}
    left = {id(call.outputs[0]): _operands(call, zero, outputs) for call in _additions(model)}
    if new == graph.operations and all(operands is None for operands in left.values()):
        return model
    if isinstance(model, keras.Sequential):
        return type(model)(new, name=model.name, trainable=model.trainable)

    made = {id(tensor): tensor for tensor in graph.inputs}

    def renewed(value: Any) -> Any:
        return made[id(value)] if isinstance(value, keras.KerasTensor) else value

    for call in calls(model):
        operands = left.get(id(call.outputs[0]))
        operation = known.get(id(call.operation), call.operation)
        if operands is None:
            args, kwargs = keras.tree.map_structure(renewed, (call.args, dict(call.kwargs)))
            result = operation(*args, **kwargs)
        elif len(operands) > 1:
            result = operation([renewed(tensor) for tensor in operands])
        elif id(call.outputs[0]) in outputs:
            # The name of an output is that of the layer that makes it.
            stand_in = layers.Identity(name=operation.name, dtype=operands[0].dtype)
            result = stand_in(renewed(operands[0]))
        else:
            result = renewed(operands[0])
        for old, tensor in zip(call.outputs, keras.tree.flatten(result), strict=True):
            made[id(old)] = tensor
    return type(model)(
        inputs=graph._inputs_struct,
        outputs=keras.tree.map_structure(renewed, graph._outputs_struct),
        name=model.name,
        trainable=model.trainable,
    )


def _additions(model: keras.Model) -> list[Call]:
    """The calls of one level that add tensors to each other."""
    return [
        call for call in calls(model) if type(call.operation) in ADDITIONS and len(call.inputs) > 1
    ]


def _zeros(model: keras.Model) -> set[int]:
    """The ids of the tensors that go into an addition and are zero whatever the model is given.

    What a nested model is given plays no part, so that this holds at each of its calls.
    """
    tensors = {id(tensor): tensor for call in _additions(model) for tensor in call.inputs}
    if not tensors:
        return set()
    inputs = functional(model).inputs
    to_sums = keras.Model(inputs, list(tensors.values()), name=model.name)
    trace = Trace()
    operands = follow(trace, to_sums, [trace.opaque(tensor.shape) for tensor in inputs])
    return {
        key
        for key, channels in zip(tensors, operands, strict=True)
        if channels.axis is not None and (channels.constant == 0).all()
    }


def _operands(call: Call, zero: set[int], outputs: set[int]) -> Sequence[keras.KerasTensor] | None:
    """What is left of an addition, None where it stays as it is.

    Args:
        call: the addition.
        zero: the ids of the tensors that are zero.
        outputs: the ids of the tensors that the model returns.
    """
    (total,) = call.outputs
    live = [tensor for tensor in call.inputs if id(tensor) not in zero] or list(call.inputs[:1])
    if len(live) == len(call.inputs):
        return None
    # A zero may still spread what it is added to, change its type, or carry a mask.
    if not any(tensor.shape == total.shape for tensor in live):
        return None
    if len({tensor.dtype for tensor in (*live, total)}) > 1:
        return None
    if any(getattr(tensor, "_keras_mask", None) is not None for tensor in call.inputs):
        return None
    if id(total) in outputs and len(live) == 1 and len(call.operation._inbound_nodes) > 1:
        # Two layers cannot bear the name of one.
        return None
    return live
