"""How long a run will take and how much disk: from records of earlier runs, or from a probe."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.errors import TfpruneError
from tfprune.files import RECORD
from tfprune.formats import FORMATS
from tfprune.pipeline.jobs import Job
from tfprune.pipeline.spec import Pipeline
from tfprune.pipeline.steps import SCRATCH
from tfprune.pipeline.store import partial
from tfprune.report.records import Finished, FinishedStep, Record, read_record
from tfprune.training.backup import epochs_done

DONE, FETCHED = "done", "in the store"
"""The states of jobs that are not made any more."""

# A file's own structure, whatever its size.
_STRUCTURE = 60_000
# A step that does not train looks at the validation images a few times and at some training images.
_LOOKS = 0.3
# Loading, converting and comparing one artifact.
_ARTIFACT_SECONDS = 3.0


@dataclass(frozen=True)
class Probe:
    """What a try of the untrained model says.

    Attributes:
        seconds_per_epoch: of the pipeline's first training, with its validation.
        parameters: of the model.
    """

    seconds_per_epoch: float
    parameters: int


class Forecast:
    """Forecasts the jobs of a run.

    What was recorded by the same step of another seed or another setting says most; next comes the
    speed of any training of the run, or of the probe, scaled by the share of MACs that is kept.

    Args:
        pipeline: what is run.
        directory: of the run.
        probe: what a try said, where nothing was recorded yet.
    """

    def __init__(self, pipeline: Pipeline, directory: Path, probe: Probe | None = None) -> None:
        self._pipeline = pipeline
        # By the identity of a step: what is left after it, for the chains that go on from there.
        self._shares: dict[str, float] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        for record in _records(directory.glob(f"steps/*/{RECORD}"), FinishedStep):
            self._steps[record["step"]] = record
        places = (f"*/seed-*/{RECORD}", f"devices/*/seed-*/{RECORD}")
        deliveries = [
            record for place in places for record in _records(directory.glob(place), Finished)
        ]
        self._others = {
            kind: statistics.median([record["seconds"] for record in deliveries if mark in record])
            for kind, mark in (
                ("delivery", "artifacts"),
                ("latency", "latency"),
                ("device", "measured"),
            )
            if any(mark in record for record in deliveries)
        }
        whole = [
            record
            for record in self._steps.values()
            if "seconds_per_epoch" in record and not record.get("before")
        ]
        self.seconds_per_epoch = (
            whole[0]["seconds_per_epoch"] if whole else probe and probe.seconds_per_epoch
        )
        self._parameters = whole[0]["parameters"] if whole else probe and probe.parameters

    @property
    def knows_nothing(self) -> bool:
        """Whether neither records nor a probe say how fast this machine trains the model."""
        return self.seconds_per_epoch is None

    def seconds(self, job: Job, seconds_per_epoch: float | None = None) -> float:
        """Seconds that a job will take, 0 for one that is finished.

        Args:
            job: what to forecast.
            seconds_per_epoch: of the whole model, where nothing was recorded.
        """
        if job.finished:
            return 0.0
        speed = self.seconds_per_epoch or seconds_per_epoch or 0.0
        if job.kind != "step":
            artifacts = sum(
                len(self._pipeline.delivered(each.name)[1])
                for each in ([job] if job.kind == "delivery" else job.before)
            )
            return self._others.get(job.kind, _ARTIFACT_SECONDS * artifacts)
        record = self._steps.get(job.name)
        epochs = self._epochs(job)
        if not epochs:
            return float(record["seconds"]) if record else _LOOKS * speed
        if record and "seconds_per_epoch" in record:
            return float(record["seconds_per_epoch"]) * epochs
        return speed * epochs * self._share(job)

    def bytes(self, job: Job) -> int:
        """Bytes of disk that a job's result will take, 0 for one that is finished."""
        if job.finished or job.kind in ("latency", "device"):
            return 0
        if job.kind == "step":
            record = self._steps.get(job.name)
            parameters = record["parameters"] if record else self._parameters or 0
            return int(parameters * FORMATS["keras"].parameter_bytes + 2 * _STRUCTURE)
        formats = self._pipeline.delivered(job.name)[1]
        count = self._parameters or 0
        return sum(count * FORMATS[each].parameter_bytes + _STRUCTURE for each in formats)

    def table(
        self, jobs: Iterable[Job], shared: Mapping[str, int | None] | None = None
    ) -> pd.DataFrame:
        """What a run has to do.

        Args:
            jobs: of the run.
            shared: the names and bytes of what a shared store has of it.

        Returns:
            One row a job, with columns task (the job in words), kind, seed, state ("done", "in the
            store", which takes no time, "to do", or after which epoch it goes on), seconds and
            bytes.
        """
        shared = shared or {}
        rows = []
        for job in jobs:
            name = (shared and job.shared_name) or ""
            if job.finished:
                state, seconds, size = DONE, 0.0, 0
            elif name in shared:
                state, seconds, size = FETCHED, 0.0, shared[name] or self.bytes(job)
            else:
                done = _done(job)
                state = f"goes on after epoch {done}" if done else "to do"
                seconds, size = self.seconds(job), self.bytes(job)
            rows.append(
                {
                    "task": job.describe(self._pipeline),
                    "kind": job.kind,
                    "seed": job.seed,
                    "state": state,
                    "seconds": seconds,
                    "bytes": size,
                }
            )
        return pd.DataFrame(rows)

    def _epochs(self, job: Job) -> int:
        """Epochs that are left to train; 0 for a step that does not train."""
        epochs = self._pipeline.steps[job.name].epochs_to_train
        return max(1, epochs - _done(job)) if epochs else 0

    def _share(self, job: Job) -> float:
        """The share of the model's MACs that earlier steps of the chain keep, about."""
        passed = []
        step = job.after
        while step is not None and step.identity not in self._shares:
            passed.append(step)
            step = step.after
        share = 1.0 if step is None else self._shares[step.identity]
        for each in reversed(passed):
            share *= self._pipeline.steps[each.name].macs_kept
            self._shares[each.identity] = share
        return share


def _done(job: Job) -> int:
    """Epochs that a training which was stopped has behind it."""
    return epochs_done(partial(job.folder, job.identity) / SCRATCH)


def _records(paths: Iterable[Path], kind: type[Record]) -> Iterable[dict[str, Any]]:
    for path in sorted(paths):
        try:
            yield read_record(path, kind)
        except TfpruneError:
            # A forecast does not fail for a damaged record: the step that needs it reports it.
            continue
