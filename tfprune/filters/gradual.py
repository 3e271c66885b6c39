"""Which channels go by when, so that a target is met step by step while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.filters.groups import ChannelGroups
from tfprune.schedule import Schedule, sparsity_at


@dataclass(frozen=True, eq=False)
class Due:
    """Units that are due to be dead.

    Attributes:
        units: bool (unit_count,).
        step: by when: the state before the update of this number, counted from 0.
    """

    units: np.ndarray
    step: int


@dataclass(frozen=True, eq=False)
class Gradual:
    """A target that is approached in stages.

    Attributes:
        groups: the channel groups of the model; its weights are looked at when a stage begins.
        alive: from a share of the cost to keep, 0 to 1, to the units that live at that share,
            bool (unit_count,); asked anew at each stage, since scores change as the model trains.
        schedule: the share of the cost that is gone at a step; it needs tfmot's `begin_step`,
            `end_step` and `frequency`, which are the stages.
    """

    groups: ChannelGroups
    alive: Callable[[float], np.ndarray]
    schedule: Schedule

    def due(self, step: int) -> Due | None:
        """What the stage that `step` lies in shall bring about; None outside all stages."""
        rule: Any = self.schedule
        if not rule.begin_step <= step < rule.end_step:
            return None
        passed = (step - rule.begin_step) // rule.frequency + 1
        until = min(rule.begin_step + passed * rule.frequency, rule.end_step)
        return Due(~self.alive(1 - sparsity_at(rule, until)), until)
