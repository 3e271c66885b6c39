"""How channels pass through layers and operations: one module for all that does the same.

A rule is registered by `channel_rule`; importing this package registers those of Keras.
"""

from tfprune.filters.rules import (
    attention,
    axes,
    elementwise,
    linear,
    nested,
    norm,
    parts,
    recurrent,
    reduce,
)
from tfprune.filters.rules.nested import follow
from tfprune.filters.rules.registry import channel_rule

__all__ = [
    "attention",
    "axes",
    "channel_rule",
    "elementwise",
    "follow",
    "linear",
    "nested",
    "norm",
    "parts",
    "recurrent",
    "reduce",
]
