"""A variant's training, the histories of its steps joined end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from tfprune.report.run import Delivery

METRICS = ("accuracy", "val_accuracy", "loss", "val_loss", "sparsity")


@dataclass(frozen=True)
class Stretch:
    """Where a step lies in its chain, in epochs from the chain's begin."""

    step: str
    begin: int
    epochs: int


@dataclass(frozen=True)
class Chain:
    """One variant's training.

    Attributes:
        variant: its name.
        stretches: the steps in order; one that does not train has no epochs.
        histories: a frame a seed: `at` (epochs from the chain's begin) and `METRICS`, NaN where a
            step did not record one.
        removals: `at` and the validation accuracy right after channels were removed, a row each.
    """

    variant: str
    stretches: tuple[Stretch, ...]
    histories: tuple[pd.DataFrame, ...]
    removals: tuple[tuple[int, float], ...]

    @property
    def epochs(self) -> int:
        """Of all steps together."""
        return sum(stretch.epochs for stretch in self.stretches)


def chain(deliveries: Sequence[Delivery]) -> Chain:
    """Joins the histories of a variant's steps.

    Args:
        deliveries: one variant, a delivery a seed.
    """
    stretches: list[Stretch] = []
    parts: list[list[pd.DataFrame]] = [[] for _ in deliveries]
    removals: list[tuple[int, float]] = []
    begin = 0
    # A step begins where the longest of all seeds' steps before it ends.
    for steps in zip_longest(*(delivery.steps for delivery in deliveries)):
        longest = 0
        there = [(seed, step) for seed, step in enumerate(steps) if step is not None]
        for seed, step in there:
            frame = _history(step.record.get("history") or {})
            longest = max(longest, len(frame))
            frame.insert(0, "at", np.arange(begin + 1, begin + 1 + len(frame)))
            parts[seed].append(frame)
            after = (step.record.get("validation_accuracy") or {}).get("removed")
            if after is not None:
                removals.append((begin, float(after)))
        stretches.append(Stretch(str(there[0][1].record["step"]), begin, longest))
        begin += longest
    return Chain(
        deliveries[0].variant,
        tuple(stretches),
        tuple(_joined(frames) for frames in parts),
        tuple(removals),
    )


def _history(history: dict[str, list[float]]) -> pd.DataFrame:
    length = max((len(history[metric]) for metric in METRICS if metric in history), default=0)
    missing = [float("nan")] * length
    return pd.DataFrame({metric: history.get(metric, missing) for metric in METRICS}, dtype=float)


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # Empty frames have no say in the types of joined ones.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=["at", *METRICS], dtype=float)
    return pd.DataFrame(
        {
            column: np.concatenate([frame[column].to_numpy(float) for frame in filled])
            for column in ("at", *METRICS)
        }
    )
