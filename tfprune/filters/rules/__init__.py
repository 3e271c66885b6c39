"""How channels pass through each type of layer: one small rule a type, in a registry."""

from tfprune.filters.rules import (
    applications,
    attention,
    grouped,
    linear,
    merge,
    norm,
    ops,
    pointwise,
    recurrent,
    refused,
    shape,
    spatial,
    wrapped,
)
from tfprune.filters.rules.registry import channel_rule, rule_for

__all__ = [
    "applications",
    "attention",
    "channel_rule",
    "grouped",
    "linear",
    "merge",
    "norm",
    "ops",
    "pointwise",
    "recurrent",
    "refused",
    "rule_for",
    "shape",
    "spatial",
    "wrapped",
]
