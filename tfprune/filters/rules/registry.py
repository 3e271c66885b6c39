"""Which rule answers for which layer or operation type, and what answers where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras

from tfprune.filters.channels import Channels, Trace
from tfprune.model.layer_table import TypeTable

Rule = Callable[..., Channels | Sequence[Channels]]
_R = TypeVar("_R", bound=Rule)

_RULES: TypeTable[Rule] = TypeTable()


def channel_rule(*types: type) -> Callable[[_R], _R]:
    """Registers how channels pass through layers of the given types.

    Example:
        ```python
        @tfprune.channel_rule(Scale)
        def scale(trace, layer, x):
            x = trace.along(x, -1)
            trace.weight(layer.factor, 0, x, "scale")
            return trace.passed(x.varying())
        ```

    A rule is called as `rule(trace, layer, *inputs)`, with a `Channels` for each input tensor,
    and returns the `Channels` of the output (a sequence of them for several outputs). It records
    on the `Trace` which weights the channels index and which config numbers count them.

    Args:
        *types: layer or operation classes. A subclass follows where it only changes how the layer
            is made or saved; one with a `call` of its own needs a rule of its own.
    """

    def register(rule: _R) -> _R:
        for operation_type in types:
            _RULES[operation_type] = rule
        return rule

    return register


def rule_for(operation: keras.Operation) -> Rule:
    """The rule of an operation, `unknown` where none is registered."""
    if getattr(operation, "lora_enabled", False) or getattr(operation, "quantization_mode", None):
        return adapted
    return _RULES.of(operation) or unknown


def refuse(trace: Trace, reason: str, *inputs: Channels) -> list[Channels]:
    """Freezes what the current operation reads; nothing is known of what it returns.

    Args:
        trace: what is recorded on.
        reason: completes "the layer ...".
        *inputs: the channels of each tensor that is read.
    """
    for channels in inputs:
        trace.freeze(channels, f"{trace.call.operation.name} {reason}")
    return [trace.opaque(output.shape) for output in trace.call.outputs]


def refusing(reason: str) -> Rule:
    """A rule for layers that freeze what they read; `reason` completes "the layer ..."."""

    def refused(trace: Trace, layer: Any, *inputs: Channels) -> list[Channels]:
        return refuse(trace, reason, *inputs)

    return refused


# Their kernels are not weights, but computed from others with axes of their own.
adapted = refusing("has LoRA or quantized weights")


def unknown(trace: Trace, layer: Any, *inputs: Channels) -> list[Channels]:
    """Freezes what goes into and comes out of a layer that has no rule."""
    kind = type(layer).__name__
    return refuse(trace, f"is a {kind}, which has no rule (see tfprune.channel_rule)", *inputs)
