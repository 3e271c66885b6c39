"""How channels pass through each type of layer: one small rule a type, in a registry."""

from tfprune.filters.rules import linear, merge, norm, pointwise, shape
from tfprune.filters.rules.registry import channel_rule, rule_for

__all__ = ["channel_rule", "linear", "merge", "norm", "pointwise", "rule_for", "shape"]
