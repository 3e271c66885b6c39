"""Chains of constraints on one weight: each constraint holds the next one as its `inner`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def unlink(variable: keras.Variable, constraint: Any) -> None:
    """Takes one constraint off a weight, wherever it is in the chain.

    Example:
        ```python
        mask.inner = kernel.constraint
        kernel.constraint = mask
        unlink(kernel, mask)  # the former constraint is back
        ```

    Args:
        variable: the weight. Each constraint on it may hold the next one as its `inner`.
        constraint: the constraint to take off. If it is not in the chain, nothing happens.
    """
    if variable.constraint is constraint:
        variable.constraint = constraint.inner
        return
    above: Any = variable.constraint
    while above is not None and getattr(above, "inner", None) is not constraint:
        above = getattr(above, "inner", None)
    if above is not None:
        above.inner = constraint.inner


# Keras 3.10 takes no other callables as constraints.
class AfterUpdate(keras.constraints.Constraint):
    """A constraint that leaves its variable as it is, and acts on others inside the same step.

    Keras applies constraints after the update, in the order of the trainable variables; on the
    last of them this is the one place inside the compiled step where all are up to date.

    Args:
        inner: the constraint the variable had before. It is applied first.
        action: what is done.
    """

    def __init__(self, inner: Callable[[Any], Any] | None, action: Callable[[], None]) -> None:
        self.inner = inner
        self._action = action
        self._variable: keras.Variable | None = None

    def on(self, variable: keras.Variable) -> None:
        """Becomes the variable's constraint."""
        self._variable = variable
        variable.constraint = self

    def __call__(self, value: Any) -> Any:
        """What the variable becomes: what it is after the inner constraint and the action."""
        assert self._variable is not None
        if self.inner is not None:
            self._variable.assign(self.inner(value))
        self._action()
        return self._variable.value
