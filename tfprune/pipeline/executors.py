"""Where the jobs of a run are done: here, in several processes, or on a Ray cluster."""

from __future__ import annotations

import json
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfprune.errors import TfpruneError, UsageError, check_package, did_you_mean
from tfprune.pipeline.jobs import MOST_LOSSES, Job, Schedule
from tfprune.pipeline.working import JobOutcome, Link, Order, packed, perform
from tfprune.vocabulary import EXECUTORS

if TYPE_CHECKING:
    from loky.process_executor import ProcessPoolExecutor

Say = Callable[[str], None]

# Of TensorFlow: take memory of a GPU as it is needed, so that processes can share one.
GROWTH = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class Execution:
    """Where the jobs of a run are done, and on how many workers.

    Example:
        ```python
        run(pipeline, execution=Execution("processes", workers=4))
        run(pipeline, execution=Execution("ray", address="auto", gpus_per_task=1))
        ```

    Attributes:
        executor: a key of `tfprune.vocabulary.EXECUTORS`.
        workers: jobs at the same time; None for one a GPU where tasks have some, else one a CPU.
        gpus_per_task: GPUs that each job has for itself; 0 leaves visible what is visible.
        address: of the Ray cluster: "auto" finds the one that this machine is part of; None starts
            Ray on this machine.

    Raises:
        UsageError: the executor is unknown, an option does not belong to it, or Ray is missing.
    """

    executor: str = "local"
    workers: int | None = None
    gpus_per_task: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UsageError(
                f"executor {self.executor!r} is unknown: {did_you_mean(self.executor, EXECUTORS)}"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}: give at least 1")
        if self.gpus_per_task < 0:
            raise UsageError(f"gpus_per_task is {self.gpus_per_task}: give 0 or more")
        if self.executor == "local" and (self.workers or self.gpus_per_task):
            given = "workers" if self.workers else "gpus_per_task"
            raise UsageError(
                f"{given} is for several processes: give the executor processes or ray"
            )
        if self.address is not None and self.executor != "ray":
            raise UsageError("address is for a Ray cluster: give the executor ray")
        if self.executor == "ray":
            check_package("executor 'ray'", "ray", "cluster")

    @property
    def is_local(self) -> bool:
        """Whether this process does all jobs itself."""
        return self.executor == "local"

    def start(self) -> Workers:
        """Starts the workers.

        Raises:
            UsageError: there are fewer GPUs than one job asks for, or no cluster answers.
        """
        if self.executor == "ray":
            from tfprune.pipeline.cluster import RayWorkers

            return RayWorkers(self.workers, self.gpus_per_task, self.address)
        return ProcessWorkers(self.workers, self.gpus_per_task)


class Workers(ABC):
    """Processes that do jobs, somewhere.

    Attributes:
        size: how many jobs they do at the same time.
    """

    size: int

    @abstractmethod
    def begin(self, place: int, order: Order, links: tuple[Link, ...]) -> None:
        """Gives a job to a free worker.

        Args:
            place: what `next` calls the job.
            order: of the run.
            links: the job and its chain.
        """

    @abstractmethod
    def next(self) -> tuple[int, JobOutcome | None]:
        """Waits until a job ends: its place, and how; None where its worker is gone."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers, at once."""


def do_all(
    jobs: Sequence[Job],
    order: Order,
    workers: Workers,
    describe: Callable[[Job], str],
    say: Say,
    arrive: Callable[[Job], None] = lambda job: None,
) -> None:
    """Does jobs on workers, each after those that it works on.

    A worker that is lost costs the job it was at: another one goes on from what is left of it.
    After an error nothing new begins, and what is under way is finished first.

    Args:
        jobs: unfinished steps and deliveries, in the order of their plan.
        order: of the run.
        workers: who does them; they are still there afterwards.
        describe: a job in a few words.
        say: told in one line what begins and what ends.
        arrive: called with each job that is done, to fetch its result.

    Raises:
        TfpruneError: a job failed, lost its worker too often, or its result did not arrive.
    """
    schedule = Schedule(jobs)
    error: TfpruneError | None = None
    begun = ended = 0
    while not schedule.is_over:
        while error is None and len(schedule.running) < workers.size:
            place = schedule.take()
            if place is None:
                break
            begun += 1
            say(f"[{begun}/{len(jobs)}] {describe(jobs[place])}")
            workers.begin(place, order, packed(jobs[place], Path(order.directory)))
        if not schedule.running:
            break
        place, outcome = workers.next()
        title = describe(jobs[place])
        if outcome is None:
            begun -= 1
            if schedule.lost(place):
                say(f"its worker is gone, another one goes on: {title}")
            else:
                error = error or TfpruneError(
                    f"{title}: its worker ended {MOST_LOSSES} times, killed by the system or by a "
                    "crash: give it more memory, or fewer --workers"
                )
            continue
        for line in outcome.warnings:
            warnings.warn(f"{title}: {line}", stacklevel=2)
        schedule.done(place)
        if outcome.error:
            error = error or outcome.raised()
            continue
        try:
            arrive(jobs[place])
        except TfpruneError as raised:
            error = error or raised
            continue
        ended += 1
        say(f"done, {ended} of {len(jobs)}, in {outcome.seconds:.1f} s: {title}")
    if error is not None:
        raise error


def order_for(
    directory: Path,
    session: str,
    store: str | None,
    pipeline: dict[str, Any],
    data_dir: str | None,
    images: str,
    commit: str,
) -> Order:
    """What workers are told of a run.

    Args:
        directory: of the run.
        session: its name.
        store: the address of the shared store; None for none.
        pipeline: as the record of the run keeps it.
        data_dir: where tensorflow-datasets keeps its sets.
        images: the hash of the data.
        commit: of the code.
    """
    from tfprune.formats.sandbox import imports_here
    from tfprune.pipeline.provenance import versions
    from tfprune.pipeline.working import DECIDING

    return Order(
        str(directory.absolute()),
        session,
        store,
        str(Path.cwd()),
        json.dumps(pipeline),
        data_dir,
        images,
        commit,
        imports_here(),
        tuple(versions()[name] for name in DECIDING),
    )


# -- processes on this machine ------------------------------------------------------------------


class ProcessWorkers(Workers):
    """Processes on this machine.

    Each has a pool of its own: a pool whose process is killed gives up all that it was given.

    Args:
        workers: how many; None for one a GPU where tasks have some, else one a CPU.
        gpus_per_task: GPUs that each process sees, and no other does.
    """

    def __init__(self, workers: int | None, gpus_per_task: int) -> None:
        gpus = _visible_gpus() if gpus_per_task else []
        most = len(gpus) // gpus_per_task if gpus_per_task else None
        if most == 0:
            raise UsageError(
                f"gpus_per_task is {gpus_per_task}, and {len(gpus)} GPUs are visible: give fewer"
            )
        self.size = workers or most or len(os.sched_getaffinity(0))
        if most is not None and self.size > most:
            raise UsageError(
                f"{self.size} workers of {gpus_per_task} GPUs each, and {len(gpus)} GPUs are "
                f"visible: give at most {most} workers"
            )
        self._gpus = [
            gpus[slot * gpus_per_task : (slot + 1) * gpus_per_task] for slot in range(self.size)
        ]
        self._pools: list[ProcessPoolExecutor | None] = [None] * self.size
        self._free = list(reversed(range(self.size)))
        self._calls: dict[Future[JobOutcome], tuple[int, int]] = {}

    def begin(self, place: int, order: Order, links: tuple[Link, ...]) -> None:
        """Gives a job to a free process; see `Workers`."""
        slot = self._free.pop()
        pool = self._pools[slot]
        try:
            pool = pool or self._started(slot)
            future = pool.submit(perform, order, links)
        except BrokenProcessPool:
            # It was killed while it had nothing to do.
            future = self._started(slot).submit(perform, order, links)
        self._calls[future] = place, slot

    def next(self) -> tuple[int, JobOutcome | None]:
        """Waits for a job; see `Workers`."""
        ended, _ = wait(self._calls, return_when=FIRST_COMPLETED)
        future = min(ended, key=lambda each: self._calls[each])
        place, slot = self._calls.pop(future)
        self._free.append(slot)
        try:
            return place, future.result()
        except BrokenProcessPool:
            self._end(slot)
            return place, None

    def close(self) -> None:
        """Ends the processes."""
        for slot in range(self.size):
            self._end(slot)

    def _end(self, slot: int) -> None:
        pool, self._pools[slot] = self._pools[slot], None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    def _started(self, slot: int) -> ProcessPoolExecutor:
        from loky.process_executor import ProcessPoolExecutor

        from tfprune.formats.sandbox import paths_here

        self._end(slot)
        pool = ProcessPoolExecutor(
            1,
            initializer=_begin,
            initargs=(os.getpid(),),
            env={
                **GROWTH,
                "PYTHONPATH": os.pathsep.join(paths_here()),
                **(
                    {"CUDA_VISIBLE_DEVICES": ",".join(self._gpus[slot])} if self._gpus[slot] else {}
                ),
            },
        )
        self._pools[slot] = pool
        return pool


def _visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` has them."""
    import subprocess

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [each for each in named.split(",") if each and each != "-1"]
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return told.stdout.split()


def _begin(parent: int) -> None:
    """Prepares a process."""
    import threading

    from loky import process_executor

    from tfprune.formats.sandbox import leave_with

    # loky replaces a process that grew by 300 MB since its first call, as every training does.
    process_executor._USE_PSUTIL = False
    # Results go to stdout, and this process has none.
    sys.stdout.flush()
    os.dup2(2, 1)
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()
