"""Which rule answers for which layer type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfprune.filters.channels import Channels, Trace

Rule = Callable[..., Channels | Sequence[Channels]]

_RULES: dict[type, Rule] = {}


def channel_rule(*types: type) -> Callable[[Rule], Rule]:
    """Registers how channels pass through layers of the given types.

    A rule is called as `rule(trace, layer, *inputs)`, with a `Channels` for each input tensor,
    and returns the `Channels` of the output (a sequence of them for several outputs). It records
    on the `Trace` which weights the channels index and which config numbers count them.

    Args:
        *types: layer or operation classes. Only exactly these types match: a subclass may
            compute something else, so it needs a rule of its own.

    Example:
        ```python
        @tfprune.channel_rule(Scale)
        def scale(trace, layer, x):
            x = trace.along(x, -1)
            trace.weight(layer.factor, 0, x, "scale")
            return trace.passed(x.varying())
        ```
    """

    def register(rule: Rule) -> Rule:
        for each in types:
            _RULES[each] = rule
        return rule

    return register


def rule_for(operation: keras.Operation) -> Rule:
    """The rule of an operation, `unknown` where nobody wrote one."""
    return _RULES.get(type(operation), unknown)


def unknown(trace: Trace, layer: Any, *inputs: Channels) -> list[Channels]:
    """Freezes what goes into and comes out of a layer that has no rule."""
    for channels in inputs:
        trace.freeze(channels, f"{layer.name} is a {type(layer).__name__}, which has no rule")
    return [trace.opaque(output.shape) for output in trace.call.outputs]
