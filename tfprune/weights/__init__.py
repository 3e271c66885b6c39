"""Weight pruning: which weights, which masks, when, and the callback that does it."""

from __future__ import annotations

from tfprune.training.schedule import polynomial_decay
from tfprune.weights.callback import PruneWeights
from tfprune.weights.constraint import MaskConstraint
from tfprune.weights.keep import KeepZeros
from tfprune.weights.lottery import Lottery, Ticket, tickets
from tfprune.weights.masks import global_masks, layer_masks, lowest_die, magnitude_mask, scores
from tfprune.weights.once import prune_once, redrawn, rewound
from tfprune.weights.rounded import rounded
from tfprune.weights.scatter import scattered, shuffled
from tfprune.weights.select import prunable, register_prunable

__all__ = [
    "KeepZeros",
    "Lottery",
    "MaskConstraint",
    "PruneWeights",
    "Ticket",
    "global_masks",
    "layer_masks",
    "lowest_die",
    "magnitude_mask",
    "polynomial_decay",
    "prunable",
    "prune_once",
    "redrawn",
    "register_prunable",
    "rewound",
    "rounded",
    "scattered",
    "scores",
    "shuffled",
    "tickets",
]
