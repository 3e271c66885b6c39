"""Weight pruning: which weights, which masks, when, and the callback that does it."""

from __future__ import annotations

from tfprune.weights.callback import PruneWeights
from tfprune.weights.constraint import MaskConstraint
from tfprune.weights.masks import global_masks, layer_masks, lowest_die, magnitude_mask, scores
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
    "register_prunable",
    "scores",
]
