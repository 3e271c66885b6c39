"""Chains of constraints on one weight: masks, proximal steps and the user's own, one in another."""

from __future__ import annotations

from typing import Any

import keras


def unlink(variable: keras.Variable, constraint: Any) -> None:
    """Takes one constraint off a weight, from wherever it is in a chain of them.

    Args:
        variable: the weight. Each constraint on it may have one below, its `inner`.
        constraint: the one to take off; if it is not there, nothing happens.
    """
    if variable.constraint is constraint:
        variable.constraint = constraint.inner
        return
    above: Any = variable.constraint
    while above is not None and getattr(above, "inner", None) is not constraint:
        above = getattr(above, "inner", None)
    if above is not None:
        above.inner = constraint.inner
