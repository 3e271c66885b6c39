"""Raw `keras.ops` in a functional graph: `x + 3`, `ops.split(x, 2)`, `ops.mean(x, axis=(1, 2))`."""

from tfprune.filters.rules import ops_math, ops_parts, ops_reduce, ops_shape

__all__ = ["ops_math", "ops_parts", "ops_reduce", "ops_shape"]
