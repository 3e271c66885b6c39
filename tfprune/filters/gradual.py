"""Which channels go by when, so that a target is met step by step while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.filters.groups import ChannelGroups
from tfprune.training.schedule import Schedule, sparsity_at


@dataclass(frozen=True, eq=False)
class Due:
    """Units that are due to be dead.

    Attributes:
        units: bool (unit_count,).
        step: by when: the state before the update of this number, counted from 0.
        last: whether the target is met, and nothing will be due any more.
    """

    units: np.ndarray
    step: int
    last: bool = False


@dataclass(frozen=True, eq=False)
class Gradual:
    """A target that is approached in stages.

    Attributes:
        groups: the channel groups of the model; its weights are looked at when a stage begins.
        missing: from a share of the cost to keep, 0 to 1, to the units that live and must not for
            it, bool (unit_count,); asked anew at each stage, since scores change in training.
        schedule: the share of the cost that is gone at a step; it needs tfmot's `begin_step`,
            `end_step` and `frequency`, which are the stages.
    """

    groups: ChannelGroups
    missing: Callable[[float], np.ndarray]
    schedule: Schedule

    def due(self, step: int) -> Due:
        """What the stage that `step` lies in shall bring about."""
        rule: Any = self.schedule
        none = np.zeros(self.groups.unit_count, bool)
        if step < rule.begin_step:
            return Due(none, rule.begin_step)
        if step >= rule.end_step:
            # A target that its last stage could not plan for is met a stage later.
            missing = self.missing(1 - sparsity_at(rule, rule.end_step))
            if missing.any():
                return Due(missing, step + rule.frequency)
            return Due(none, np.iinfo(np.int32).max, last=True)
        passed = (step - rule.begin_step) // rule.frequency + 1
        until = min(rule.begin_step + passed * rule.frequency, rule.end_step)
        return Due(self.missing(1 - sparsity_at(rule, until)), until)
