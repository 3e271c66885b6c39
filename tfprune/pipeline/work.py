"""Does the tasks of a run. Importing it loads TensorFlow; planning does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from tfprune import data
from tfprune.artifacts import export, write_manifest, write_run_manifest
from tfprune.errors import TfpruneError
from tfprune.files import RECORD, write_text
from tfprune.formats import load
from tfprune.measure import evaluate, parameters, sparsity, time_files
from tfprune.model import counting
from tfprune.pipeline import provenance, steps
from tfprune.pipeline.plan import Task
from tfprune.pipeline.spec import Pipeline
from tfprune.report import render
from tfprune.report.records import DeliveryRecord, read_record

# Enough rounds for a steady median, little enough to be quick beside the training.
_LATENCY_ROUNDS = 200


@dataclass(frozen=True)
class Shop:
    """What tasks are done with.

    Attributes:
        pipeline: what is run.
        directory: of the run.
        dataset: its images.
        commit: of the code, as it was when the run began.
    """

    pipeline: Pipeline
    directory: Path
    dataset: data.Dataset
    commit: str

    def do(
        self,
        task: Task,
        label: str | None,
        after: Callable[[float], float] | None,
        folder: Path,
    ) -> dict[str, Any]:
        """Does one task.

        Args:
            task: what to do; all before it is done.
            label: for progress bars; None for silence.
            after: seconds of work after this task, from the seconds an epoch takes.
            folder: where its result goes, with what an earlier attempt left.

        Returns:
            What to record.
        """
        begun = time.perf_counter()
        match task.kind:
            case "step":
                record = self._step(task, folder, label, after)
            case "delivery":
                record = self._deliver(task, folder)
            case "latency":
                record = self._time(task)
        return {**record, "seconds": time.perf_counter() - begun, "commit": self.commit}

    def _step(
        self,
        task: Task,
        folder: Path,
        label: str | None,
        after: Callable[[float], float] | None,
    ) -> dict[str, Any]:
        model = self._model(task)
        bench = steps.Bench(
            self.dataset,
            task.seed,
            folder,
            label,
            after,
            partial(self._origin, task),
            partial(self._earlier, task),
        )
        model, record = steps.perform(self.pipeline.steps[task.name], model, bench)
        export(model, folder, ["keras"])
        return {
            "step": task.name,
            "specification": self.pipeline.steps[task.name].model_dump(mode="json"),
            "set": sorted(self.pipeline.steps[task.name].model_dump(exclude_defaults=True)),
            "seed": task.seed,
            "before": task.before[-1].folder.name if task.before else None,
            **steps.described(model),
            **record,
        }

    def _model(self, task: Task) -> keras.Model:
        """The model as the task before leaves it."""
        if task.before:
            return _kept(task.before[-1].folder / "model.keras")
        return steps.build(self.pipeline.model, self.dataset, task.seed)

    def _earlier(self, task: Task, step: str) -> keras.Model:
        folder = next(each.folder for each in task.before if each.name == step)
        return _kept(folder / "model.keras")

    def _origin(self, task: Task, epoch: int, seed: int) -> keras.Model:
        if epoch:
            return _kept(steps.kept(task.before[0].folder, epoch))
        return steps.build(self.pipeline.model, self.dataset, seed)

    def _deliver(self, task: Task, folder: Path) -> dict[str, Any]:
        _, formats, images = self.pipeline.delivered(task.name)
        model = self._model(task)
        artifacts = export(
            model,
            folder,
            formats,
            representative_data=self.dataset.train.images[:images],
            # What calibrated a file cannot show what calibration lost.
            comparison_data=self.dataset.validation.images,
        )
        write_manifest(folder, artifacts)
        write_text(folder / "labels.txt", "\n".join(self.dataset.classes) + "\n")
        write_text(folder / "sparsity.csv", render(sparsity(model), "csv"))
        return {
            "variant": task.name,
            "seed": task.seed,
            "steps": [each.folder.name for each in task.before],
            "macs": counting.count_macs(model).whole_macs,
            "artifacts": [
                {**artifact.to_dict(folder), **_measured(artifact.path, self.dataset.test)}
                for artifact in artifacts
            ],
        }

    def _time(self, task: Task) -> dict[str, Any]:
        """Times all artifacts of a seed: see `tfprune.measure.time_files`."""
        accuracies = {
            (delivery.folder / each["path"]).relative_to(self.directory).as_posix(): each[
                "accuracy"
            ]
            for delivery in task.before
            for each in read_record(delivery.folder / RECORD, DeliveryRecord)["artifacts"]
        }
        files = {path: self.directory / path for path in sorted(accuracies)}
        table = time_files(files, self.dataset.test.images[0], rounds=_LATENCY_ROUNDS)
        # All that a seed delivers is in its place by now.
        write_run_manifest(self.directory, accuracies)
        return {"latency": table.to_dict("records"), "machine": provenance.machine()}


def _kept(path: Path) -> keras.Model:
    """A model that an earlier step left."""
    if not path.is_file():
        raise TfpruneError(f"{path} is missing: delete its folder {path.parent} and run again")
    try:
        return keras.saving.load_model(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise TfpruneError(
            f"{path} is damaged ({said}): delete its folder {path.parent} and run again"
        ) from error


def _measured(path: Path, test: data.Split) -> dict[str, Any]:
    evaluation, counted = evaluate(load(path), test.images, test.labels), parameters(path)
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "test_images": evaluation.images,
        "test_seconds": evaluation.seconds,
        "parameters": counted.total,
        "nonzero_parameters": counted.nonzero,
    }
