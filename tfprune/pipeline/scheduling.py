"""Which job of a plan is next, and what a lost worker costs. Pure: no file, no process, no clock.

Example:
    ```python
    schedule = Schedule(jobs)
    while not schedule.is_over:
        while (place := schedule.take()) is not None:
            ...  # begin jobs[place] on a free worker
        schedule.done(place)  # or schedule.lost(place), which gives it back
    ```
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from tfprune.pipeline.plan import Job

MOST_LOSSES = 3
"""How often a job may lose its worker before the run ends with an error."""


class Schedule:
    """The order in which the jobs of a plan are given to workers.

    A job is ready when all jobs are done whose results it works on. Of the ready ones that with the
    longest chain behind it comes first, because the run cannot be shorter than its longest chain;
    of equals the one that the plan names first. All operations together take O(n log n) for a plan
    of n jobs.

    Args:
        jobs: unfinished jobs, in the order of their plan; what they work on and is not among them
            counts as done.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        places = {(job.folder, job.identity): place for place, job in enumerate(jobs)}
        self._waiting = [0] * len(jobs)
        self._next: list[list[int]] = [[] for _ in jobs]
        for place, job in enumerate(jobs):
            direct = job.timed or (() if job.after is None else (job.after,))
            for before in direct:
                earlier = places.get((before.folder, before.identity))
                if earlier is not None:
                    self._waiting[place] += 1
                    self._next[earlier].append(place)
        # Each job comes after those that it works on, so one pass from the end finds all chains.
        self._longest = [1] * len(jobs)
        for place in reversed(range(len(jobs))):
            behind = (self._longest[each] for each in self._next[place])
            self._longest[place] = 1 + max(behind, default=0)
        self._losses: Counter[int] = Counter()
        self._running: set[int] = set()
        self._left = len(jobs)
        self._ready: list[tuple[int, int]] = []
        for place, waiting in enumerate(self._waiting):
            if not waiting:
                self._make_ready(place)

    @property
    def is_over(self) -> bool:
        """Whether every job is done."""
        return not self._left

    @property
    def running(self) -> frozenset[int]:
        """The places of the jobs that were taken and are neither done nor lost."""
        return frozenset(self._running)

    def take(self) -> int | None:
        """The place of the job to begin next; None where none is ready."""
        if not self._ready:
            return None
        _, place = heapq.heappop(self._ready)
        self._running.add(place)
        return place

    def done(self, place: int) -> None:
        """A job that was taken is done: what waited for it alone becomes ready."""
        self._running.remove(place)
        self._left -= 1
        for later in self._next[place]:
            self._waiting[later] -= 1
            if not self._waiting[later]:
                self._make_ready(later)

    def lost(self, place: int) -> bool:
        """The worker of a job is gone: the job alone is ready again.

        Returns:
            Whether it may be tried again; False after `MOST_LOSSES` losses.
        """
        self._running.remove(place)
        self._losses[place] += 1
        if self._losses[place] >= MOST_LOSSES:
            return False
        self._make_ready(place)
        return True

    def _make_ready(self, place: int) -> None:
        heapq.heappush(self._ready, (-self._longest[place], place))
