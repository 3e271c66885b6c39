"""Each job once, after what it works on; a lost worker costs one job."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.pipeline.jobs import MOST_LOSSES, Job, Schedule


def _job(number: int, after: Job | None) -> Job:
    name = f"job{number}"
    return Job("step", name, "it", 0, Path(name), name, after)


@st.composite
def _plans(draw: st.DrawFn) -> list[Job]:
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 20))):
        jobs.append(_job(number, draw(st.sampled_from([None, *jobs]))))
    return jobs


@given(_plans(), st.integers(1, 4), st.randoms())
def test_each_job_is_done_once_and_after_what_it_works_on(jobs, workers, chance):
    schedule = Schedule(jobs)
    done, running = [], []
    losses = dict.fromkeys(range(len(jobs)), 0)
    while not schedule.is_over:
        while len(running) < workers and (place := schedule.take()) is not None:
            running.append(place)
        # A free worker and a ready job never wait for each other.
        assert running
        place = running.pop(chance.randrange(len(running)))
        if losses[place] < MOST_LOSSES - 1 and chance.random() < 0.3:
            losses[place] += 1
            assert schedule.lost(place)
            continue
        before = jobs[place].after
        assert before is None or jobs.index(before) in done
        schedule.done(place)
        done.append(place)
    assert sorted(done) == list(range(len(jobs)))


def test_the_longest_chain_comes_first():
    short = _job(0, None)
    first = _job(1, None)
    second = _job(2, first)
    schedule = Schedule([short, first, second])
    assert schedule.take() == 1


def test_a_job_that_kills_every_worker_is_given_up():
    schedule = Schedule([_job(0, None)])
    answers = []
    for _ in range(MOST_LOSSES):
        answers.append(schedule.lost(schedule.take()))
    assert answers == [True] * (MOST_LOSSES - 1) + [False]
    assert schedule.take() is None
    assert not schedule.is_over


def test_what_is_finished_already_is_not_waited_for():
    first = _job(0, None)
    assert Schedule([_job(1, first)]).take() == 0


def test_only_what_is_running_can_be_done():
    schedule = Schedule([_job(0, None)])
    with pytest.raises(KeyError):
        schedule.done(0)
