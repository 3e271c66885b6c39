"""How long a run will take and how much disk: from records of earlier runs, or from a probe."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.errors import TfpruneError
from tfprune.files import RECORD
from tfprune.formats import FORMATS
from tfprune.pipeline.plan import Task
from tfprune.pipeline.spec import Pipeline
from tfprune.pipeline.steps import SCRATCH
from tfprune.pipeline.store import partial
from tfprune.report.records import Finished, FinishedStep, Record, read_record
from tfprune.training.backup import epochs_done

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
    """Forecasts the tasks of a run.

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
        deliveries = list(_records(directory.glob(f"*/seed-*/{RECORD}"), Finished))
        self._others = {
            kind: statistics.median([record["seconds"] for record in deliveries if mark in record])
            for kind, mark in (("delivery", "artifacts"), ("latency", "latency"))
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

    def seconds(self, task: Task, seconds_per_epoch: float | None = None) -> float:
        """Seconds that a task will take, 0 for one that is finished.

        Args:
            task: what to forecast.
            seconds_per_epoch: of the whole model, where nothing was recorded.
        """
        if task.finished:
            return 0.0
        speed = self.seconds_per_epoch or seconds_per_epoch or 0.0
        if task.kind != "step":
            artifacts = sum(
                len(self._pipeline.delivered(each.name)[1])
                for each in ([task] if task.kind == "delivery" else task.before)
            )
            return self._others.get(task.kind, _ARTIFACT_SECONDS * artifacts)
        record = self._steps.get(task.name)
        epochs = self._epochs(task)
        if not epochs:
            return float(record["seconds"]) if record else _LOOKS * speed
        if record and "seconds_per_epoch" in record:
            return float(record["seconds_per_epoch"]) * epochs
        return speed * epochs * self._share(task)

    def bytes(self, task: Task) -> int:
        """Bytes of disk that a task's result will take, 0 for one that is finished."""
        if task.finished or task.kind == "latency":
            return 0
        if task.kind == "step":
            record = self._steps.get(task.name)
            parameters = record["parameters"] if record else self._parameters or 0
            return int(parameters * FORMATS["keras"].parameter_bytes + 2 * _STRUCTURE)
        formats = self._pipeline.delivered(task.name)[1]
        count = self._parameters or 0
        return sum(count * FORMATS[each].parameter_bytes + _STRUCTURE for each in formats)

    def table(self, tasks: Iterable[Task]) -> pd.DataFrame:
        """What a run has to do.

        Args:
            tasks: of the run.

        Returns:
            One row a task, with columns task, kind, seed, state ("done", "to do", or after which
            epoch it goes on), seconds and bytes.
        """
        rows = []
        for task in tasks:
            done = 0 if task.finished else _done(task)
            rows.append(
                {
                    "task": task.describe(self._pipeline),
                    "kind": task.kind,
                    "seed": task.seed,
                    "state": "done"
                    if task.finished
                    else f"goes on after epoch {done}"
                    if done
                    else "to do",
                    "seconds": self.seconds(task),
                    "bytes": self.bytes(task),
                }
            )
        return pd.DataFrame(rows)

    def _epochs(self, task: Task) -> int:
        """Epochs that are left to train; 0 for a step that does not train."""
        epochs = self._pipeline.steps[task.name].epochs_to_train
        return max(1, epochs - _done(task)) if epochs else 0

    def _share(self, task: Task) -> float:
        """The share of the model's MACs that earlier steps of the chain keep, about."""
        passed = []
        step = task.after
        while step is not None and step.identity not in self._shares:
            passed.append(step)
            step = step.after
        share = 1.0 if step is None else self._shares[step.identity]
        for each in reversed(passed):
            share *= self._pipeline.steps[each.name].macs_kept
            self._shares[each.identity] = share
        return share


def _done(task: Task) -> int:
    """Epochs that a training which was stopped has behind it."""
    return epochs_done(partial(task.folder, task.identity) / SCRATCH)


def _records(paths: Iterable[Path], kind: type[Record]) -> Iterable[dict[str, Any]]:
    for path in sorted(paths):
        try:
            yield read_record(path, kind)
        except TfpruneError:
            # A forecast is no place to fail at; whoever needs the record will say so.
            continue
