"""Image-classification sets in memory, and the batches that training reads from them.

Two ideas: the test split is loaded and never looked at, and the order of the training batches
is a pure function of (seed, epoch), so that a killed training sees the same batches when it
resumes.
"""

from __future__ import annotations

from tfprune.data._batches import AUGMENTATIONS, batches, plain_batches, seen, steps_per_epoch
from tfprune.data._loading import load
from tfprune.data._splits import Dataset, Split, statistics

__all__ = [
    "AUGMENTATIONS",
    "Dataset",
    "Split",
    "batches",
    "load",
    "plain_batches",
    "seen",
    "statistics",
    "steps_per_epoch",
]
