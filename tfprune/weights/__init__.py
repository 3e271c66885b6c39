"""Weight pruning: which weights, which masks, when, and the callback that does it."""

from __future__ import annotations

from tfprune.weights.callback import PruneWeights
from tfprune.weights.constraint import MaskConstraint
from tfprune.weights.keep import KeepZeros
from tfprune.weights.masks import global_masks, layer_masks, lowest_die, magnitude_mask, scores
from tfprune.weights.once import prune_once, rewound
from tfprune.weights.schedule import (
    Due,
    Schedule,
    arrival,
    constant_sparsity,
    due,
    polynomial_decay,
)
from tfprune.weights.select import prunable, register_prunable

__all__ = [
    "Due",
    "KeepZeros",
    "MaskConstraint",
    "PruneWeights",
    "Schedule",
    "arrival",
    "constant_sparsity",
    "due",
    "global_masks",
    "layer_masks",
    "lowest_die",
    "magnitude_mask",
    "polynomial_decay",
    "prunable",
    "prune_once",
    "register_prunable",
    "rewound",
    "scores",
]
