"""Weight pruning: which weights, which masks, when, and the callback that does it."""

from __future__ import annotations

from tfprune.training.schedule import polynomial_decay
from tfprune.weights.attached import KeepZeros, MaskConstraint
from tfprune.weights.callback import PruneWeights
from tfprune.weights.lottery import Lottery, Ticket, tickets
from tfprune.weights.masks import global_masks, layer_masks, magnitude_mask, mask_lowest, scores
from tfprune.weights.oneshot import prune_once, round_weights
from tfprune.weights.rewinding import reinitialize, rewind, shuffle_weights, untrained_control
from tfprune.weights.rewriting import rewrite_for_xnnpack
from tfprune.weights.selection import prunable, register_prunable

__all__ = [
    "KeepZeros",
    "Lottery",
    "MaskConstraint",
    "PruneWeights",
    "Ticket",
    "global_masks",
    "layer_masks",
    "magnitude_mask",
    "mask_lowest",
    "polynomial_decay",
    "prunable",
    "prune_once",
    "register_prunable",
    "reinitialize",
    "rewind",
    "rewrite_for_xnnpack",
    "round_weights",
    "scores",
    "shuffle_weights",
    "tickets",
    "untrained_control",
]
