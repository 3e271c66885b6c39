"""Workers on a Ray cluster; needs the extra `cluster`. Only this module imports Ray."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray

from tfprune.errors import UsageError
from tfprune.pipeline.executors import GROWTH, Workers
from tfprune.pipeline.working import JobOutcome, Link, Order, perform


class RayWorkers(Workers):
    """Tasks on a Ray cluster, one CPU each.

    Args:
        workers: tasks at the same time; None for as many as the cluster has GPUs or CPUs for.
        gpus_per_task: GPUs that each task has for itself.
        address: of the cluster; None starts Ray on this machine, or takes the cluster that this
            process is connected to.

    Raises:
        UsageError: no cluster answers, or it has fewer GPUs than one task asks for.
    """

    def __init__(self, workers: int | None, gpus_per_task: int, address: str | None) -> None:
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            # Without it Ray zips this folder for its workers; the code is installed on them.
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            try:
                ray.init(
                    address=address,
                    include_dashboard=False,
                    log_to_driver=True,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                said = " ".join(str(error).split())[:200]
                raise UsageError(
                    f"no Ray cluster answers at {address or 'this machine'} ({said}): start one "
                    "with `ray start --head`, or give no --address"
                ) from error
        have = ray.cluster_resources()
        if gpus_per_task:
            room = int(have.get("GPU", 0)) // gpus_per_task
            if not room:
                raise UsageError(
                    f"gpus_per_task is {gpus_per_task}, and the cluster has "
                    f"{int(have.get('GPU', 0))} GPUs: give fewer"
                )
        else:
            room = int(have.get("CPU", 1))
        self.size = workers or max(1, room)
        # Who does a job again after a loss is the schedule's to say.
        self._perform = ray.remote(
            num_cpus=1,
            num_gpus=gpus_per_task,
            max_retries=0,
            runtime_env={"env_vars": GROWTH},
        )(perform)
        self._calls: dict[Any, int] = {}

    def begin(self, place: int, order: Order, links: tuple[Link, ...]) -> None:
        """Gives a job to the cluster; see `Workers`."""
        self._calls[self._perform.remote(order, links)] = place

    def next(self) -> tuple[int, JobOutcome | None]:
        """Waits for a job; see `Workers`."""
        (ended, *_), _ = ray.wait(list(self._calls), num_returns=1)
        place = self._calls.pop(ended)
        try:
            outcome: JobOutcome = ray.get(ended)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.ObjectLostError,
        ):
            return place, None
        return place, outcome

    def close(self) -> None:
        """Ends the tasks, and Ray where it was started here."""
        for call in self._calls:
            ray.cancel(call, force=True)
        self._calls.clear()
        if self._is_ours:
            ray.shutdown()
