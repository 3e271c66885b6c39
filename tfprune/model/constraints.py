"""Chains of constraints on one weight: each constraint holds the next one as its `inner`."""

from __future__ import annotations

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
