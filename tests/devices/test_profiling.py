"""Timing single operators, on the interpreter and with clocks made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tfprune.devices import profiling
from tfprune.devices.operators import Operator
from tfprune.devices.profiling import OperatorTimes

SMALL = Operator("dense", (1, 1), (1, 1), 4, 4)


def test_every_distinct_operator_is_timed_once() -> None:
    counts: list[int] = []
    times = OperatorTimes(progress=counts.append)
    wide = replace(SMALL, outputs=8)
    first = times([SMALL, wide, SMALL])
    assert (first > 0).all()
    assert first[0] == first[2]
    np.testing.assert_array_equal(times([wide, SMALL]), first[[1, 0]])
    assert counts == [2]


@pytest.mark.parametrize("int8", [False, True])
def test_more_work_takes_longer(int8: bool) -> None:
    # A factor of a thousand, which no other load on the machine reverses.
    large = Operator("conv", (32, 32), (32, 32), 32, 32, window=(3, 3))
    small, long = OperatorTimes(int8=int8)([SMALL, large])
    assert long > small


class Machine:
    """A clock that advances by the work of each call, at a speed that drifts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slowness = 0, 1
        monkeypatch.setattr(OperatorTimes, "_prepared", lambda _, operator: self.work(operator))

    def work(self, operator: Operator):
        def call() -> None:
            self.now += self.slowness * 1000 * operator.inputs * operator.outputs

        return call


def test_drift_of_the_machine_between_batches_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    times = OperatorTimes(clock=lambda: machine.now)
    (early,) = times([SMALL])
    machine.slowness = 3
    (late,) = times([replace(SMALL, outputs=8)])
    assert early == pytest.approx(16e-3)
    assert late == pytest.approx(2 * early)


def test_memory_bounds_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(profiling, "_MEMORY", 200)
    counts: list[int] = []
    times = OperatorTimes(clock=lambda: machine.now, progress=counts.append)
    times([replace(SMALL, outputs=n) for n in (4, 5, 6, 7)])
    assert counts == [2, 3, 4]
