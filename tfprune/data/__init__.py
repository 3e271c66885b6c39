"""Data sets for image classification in memory, and batches for training and evaluation.

No decision uses the test split. The order of the training batches is a pure function of (seed,
epoch), so that a killed training reads the same batches when it resumes.
"""

from __future__ import annotations

from tfprune.data.batching import AUGMENTATIONS, batches, plain_batches, seen, steps_per_epoch
from tfprune.data.loading import load
from tfprune.data.splits import Dataset, Split, statistics

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
