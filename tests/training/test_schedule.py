from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.errors import UsageError
from tfprune.training.schedule import (
    MaskUpdate,
    constant_sparsity,
    default_frequency,
    final_update,
    last_update,
    polynomial_decay,
    single_cut_reason,
)

steps = st.integers(0, 60)


class Counting:
    """tfmot's constant schedule as a plain callable that counts its calls."""

    def __init__(self, begin_step: int, end_step: int, frequency: int) -> None:
        self.begin_step, self.end_step, self.frequency = begin_step, end_step, frequency
        self.calls: list[int] = []

    def __call__(self, step: int) -> tuple[bool, float]:
        self.calls.append(step)
        inside = self.begin_step <= step <= self.end_step
        return inside and (step - self.begin_step) % self.frequency == 0, step / 1000


@settings(max_examples=200, deadline=None)
@given(steps, steps, st.integers(1, 20), st.lists(st.integers(-1, 80), min_size=2, max_size=2))
def test_the_last_update_is_the_last_step_that_asks_or_the_end(begin, length, frequency, window):
    schedule = Counting(begin, begin + length, frequency)
    last, step = sorted(window)
    asked = [s for s in range(last + 1, step + 1) if schedule(s)[0] or s == schedule.end_step]
    schedule.calls.clear()
    expected = MaskUpdate(asked[-1], asked[-1] / 1000) if asked else None
    assert last_update(schedule, last, step) == expected
    # Computed, not searched: at most one call, for the sparsity.
    assert len(schedule.calls) == bool(asked)
    # A callable that shows no attributes but the end is searched, to the same result.
    bare = lambda s: schedule(s)  # noqa: E731
    bare.end_step = schedule.end_step
    assert last_update(bare, last, step) == expected


@pytest.mark.parametrize("final", [0.8, 0.9, 0.75])
@pytest.mark.parametrize(("begin", "end"), [(0, 150), (0, 70), (3, 3), (0, 100)])
def test_tfmots_decay_ends_at_exactly_the_target(begin, end, final):
    schedule = polynomial_decay(0.1, final, begin, end, frequency=100)
    assert last_update(schedule, -1, end + 5) == MaskUpdate(end, final)
    assert last_update(schedule, end, end + 500) is None
    assert final_update(schedule) == MaskUpdate(end, final)


def test_tfmots_decay_is_followed_on_the_way():
    schedule = polynomial_decay(0.0, 0.8, begin=10, end=50, frequency=10, power=1)
    assert last_update(schedule, -1, 9) is None
    seen = [last_update(schedule, step - 1, step) for step in range(61)]
    assert [(d.step, round(d.sparsity, 6)) for d in seen if d] == [
        (10, 0.0),
        (20, 0.2),
        (30, 0.4),
        (40, 0.6),
        (50, 0.8),
    ]


def test_a_constant_schedule_without_end_goes_on():
    schedule = constant_sparsity(0.9, begin=5, frequency=10)
    assert last_update(schedule, -1, 4) is None
    assert last_update(schedule, -1, 1_000_000) == MaskUpdate(999_995, 0.9)
    assert final_update(schedule) == MaskUpdate(5, 0.9)


def test_a_bare_callable_is_evaluated_step_by_step_and_has_no_end():
    schedule = lambda step: (step == 7, 1.0)  # noqa: E731
    assert last_update(schedule, -1, 20) == MaskUpdate(7, 1.0)
    assert last_update(schedule, 7, 20) is None
    assert final_update(schedule) is None


@pytest.mark.parametrize("sparsity", [-0.1, 1.5, float("nan")])
def test_a_target_outside_0_to_1_is_refused(sparsity):
    with pytest.raises(UsageError, match=r"sparsity at step 4 .* from 0 to 1"):
        last_update(lambda step: (step == 4, sparsity), -1, 9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: polynomial_decay(0.0, 1.2, 0, 10),
        lambda: polynomial_decay(0.0, 0.5, 10, 5),
        lambda: constant_sparsity(0.5, frequency=0),
    ],
)
def test_what_tfmot_refuses_is_a_usage_error(make):
    with pytest.raises(UsageError):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, "0"])
def test_importing_tfmot_leaves_the_environment_as_it_was(before):
    code = (
        "import os, sys\n"
        "from tfprune.training.schedule import polynomial_decay\n"
        "assert 'tensorflow_model_optimization' not in sys.modules\n"
        "polynomial_decay(0.0, 0.5, 0, 10)\n"
        "print('->', os.environ.get('TF_USE_LEGACY_KERAS'))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    if before is not None:
        environment["TF_USE_LEGACY_KERAS"] = before
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"-> {before}"


@given(steps, st.integers(0, 5000))
def test_a_ramp_has_twenty_updates_or_tfmots_frequency(begin, length):
    frequency = default_frequency(begin, begin + length)
    assert 1 <= frequency <= 100
    # At least twenty where there are twenty steps, and none that is not needed for them.
    assert length // frequency >= min(20, length)
    assert frequency == 100 or length // (frequency + 1) < 20


def test_a_frequency_is_that_of_the_ramp_unless_it_is_given():
    assert polynomial_decay(0.0, 0.8, 10, 70).frequency == 3
    assert polynomial_decay(0.0, 0.8, 0, 5000).frequency == 100
    assert polynomial_decay(0.0, 0.8, 10, 70, frequency=100).frequency == 100


@settings(deadline=None)
@given(steps, steps, st.integers(1, 80), st.sampled_from([0.0, 0.3]))
def test_a_single_cut_is_reported_exactly_if_a_ramp_has_one(begin, length, frequency, initial):
    schedule = polynomial_decay(initial, 0.8, begin, begin + length, frequency)
    cuts = {last_update(schedule, step - 1, step) for step in range(begin + length + 1)} - {None}
    on_the_way = [cut for cut in cuts if initial < cut.sparsity]
    assert (single_cut_reason(schedule) is not None) == (len(on_the_way) == 1)


def test_a_single_cut_by_design_is_not_reported():
    assert single_cut_reason(constant_sparsity(0.5)) is None
    assert single_cut_reason(constant_sparsity(0.5, begin=3, end=9)) is None
    assert single_cut_reason(lambda step: (step == 7, 0.5)) is None
