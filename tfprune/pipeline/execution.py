"""Does the jobs of a run, and times a few steps for a forecast. Importing it loads TensorFlow."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras

from tfprune import data, figures, tasks, training, zoo
from tfprune.artifacts import export, write_manifest, write_run_manifest
from tfprune.artifacts.card import LABELS
from tfprune.artifacts.examples import COMPARED_IMAGES
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import RECORD, write_text
from tfprune.formats import FORMATS, load
from tfprune.formats.registry import has_batch
from tfprune.measure import evaluate, parameters, sparsity, time_files
from tfprune.model import counting
from tfprune.model.loading import import_layers
from tfprune.model.loading import load as load_model
from tfprune.pipeline import provenance
from tfprune.pipeline.forecast import Probe
from tfprune.pipeline.inputs import load_data
from tfprune.pipeline.jobs import Job
from tfprune.pipeline.on_devices import left_out, told_by
from tfprune.pipeline.spec import DataSpec, ModelSpec, Pipeline, none_delivered
from tfprune.pipeline.steps import Context
from tfprune.pipeline.steps.base import save
from tfprune.pipeline.steps.training import TrainingStep, kept_model
from tfprune.pipeline.store import Store
from tfprune.quantize import without_rounding
from tfprune.report import render
from tfprune.report.records import DeliveryRecord, read_record
from tfprune.tasks import TaskSpec
from tfprune.training.binding import Binding
from tfprune.training.precision import mixed_precision
from tfprune.vocabulary import DEFAULT_BATCH

# Enough rounds for a steady median, little enough to be quick beside the training.
_LATENCY_ROUNDS = 200
# Of a probe: the first steps trace and allocate.
_PROBE_WARMUP_STEPS = 3
_PROBE_TIMED_STEPS = 12
_PROBE_VALIDATION_IMAGES = 512


def build_model(spec: ModelSpec, dataset: data.Dataset, seed: int) -> keras.Model:
    """The model that a pipeline starts from; see `tfprune.load`.

    Args:
        spec: a name of the zoo, whose normalisation is taken from the training images, a file, or
            a function, which may have the arguments `input_shape`, `classes` and `seed`.
        dataset: the images.
        seed: of the initial weights.

    Raises:
        UsageError: an option is unknown or impossible.
        TfpruneError: the file cannot be read, the function fails, or pretrained weights cannot be
            fetched.
    """
    told: dict[str, Any] = {
        "input_shape": dataset.input_shapes,
        # Where targets are not classes, the net needs the option.
        **({"classes": len(dataset.classes)} if dataset.classes else {}),
        "seed": seed,
    }
    if spec.name in zoo.NAMES + zoo.APPLICATIONS:
        mean, std = data.statistics(dataset.train)
        told |= {
            "input_shape": dataset.image_shape,
            "mean": mean.tolist(),
            "std": std.tolist(),
        }
    return load_model(spec.name, options=spec.options, input_shape=spec.input_shape, defaults=told)


def usual_size(model: keras.Model | str) -> tuple[int, int] | None:
    """The height and width of the images that a model takes.

    Args:
        model: a model, or the name of a net of the zoo.

    Returns:
        None if the model does not take one image of a fixed size.
    """
    if isinstance(model, str):
        return zoo.usual_size(model)
    shapes = [tuple(end.shape) for end in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:3]:
        return None
    return shapes[0][1], shapes[0][2]


def model_with_data(
    spec: ModelSpec,
    data_spec: DataSpec | None,
    data_dir: str | None = None,
    seed: int = 0,
    task: TaskSpec | None = None,
) -> tuple[keras.Model, data.Dataset | None]:
    """Loads a model and its data, each as the other asks for it.

    Images that vary in size get the size that the model takes. A net or a function gets the shape
    and the classes that the data have.

    Args:
        spec: the model.
        data_spec: the data; None for none.
        data_dir: where tensorflow-datasets keeps its sets.
        seed: of the initial weights, and of the validation examples.
        task: what the model is trained for: it is compiled for that. None leaves it as it is.

    Raises:
        UsageError: the task does not fit; and see `tfprune.load` and `tfprune.data.load`.
        TfpruneError: likewise.
    """
    if spec.reference.path is not None or data_spec is None:
        model = load_model(
            spec.name,
            options=spec.options,
            input_shape=spec.input_shape,
            defaults={"seed": seed},
        )
        if data_spec is None:
            return model, None
        dataset = load_data(data_spec, data_dir, seed=seed, usual_size=usual_size(model))
    else:
        dataset = load_data(data_spec, data_dir, seed=seed, usual_size=_asked_size(spec))
        model = build_model(spec, dataset, seed)
    if task is not None:
        compile_for(model, tasks.find_task(model, task, dataset))
    return model, dataset


def compile_for(model: keras.Model, task: tasks.Task) -> None:
    """Compiles a model so that all that reads its losses and metrics knows the task."""
    model.compile("sgd", **task.compile_arguments())


def _asked_size(spec: ModelSpec) -> tuple[int, int] | None:
    """The height and width of the images of a model that is not built yet."""
    shape = spec.input_shape
    if shape is not None:
        return shape[:2] if isinstance(shape, tuple) and len(shape) == 3 else None
    return None if spec.reference.function is not None else usual_size(spec.name)


def probe(pipeline: Pipeline, dataset: data.Dataset) -> Probe:
    """Builds the model of a pipeline, and times its first training a little.

    Args:
        pipeline: what would be run.
        dataset: its images.

    Returns:
        The seconds that an epoch would take on this machine now, and the model's size.
    """
    model = build_model(pipeline.model, dataset, pipeline.seeds[0])
    step = next((each for each in pipeline.steps.values() if isinstance(each, TrainingStep)), None)
    if step is None:
        return Probe(0.0, model.count_params())
    steps = data.steps_per_epoch(dataset.train, step.batch_size)
    task = tasks.find_task(model, pipeline.task, dataset)
    training.compile(model, step, steps, task=task)
    batches = Binding(model, dataset).bound(
        data.batches(
            dataset.train,
            step.batch_size,
            seed=pipeline.seeds[0],
            epochs=_PROBE_WARMUP_STEPS + _PROBE_TIMED_STEPS,
            augment=step.augment,
        )
    )
    seconds = []
    with mixed_precision(model, step.precision):
        for batch in itertools.islice(batches, _PROBE_WARMUP_STEPS + _PROBE_TIMED_STEPS):
            begun = time.perf_counter()
            model.train_on_batch(*batch)
            seconds.append(time.perf_counter() - begun)
    some = dataset.validation.sample(_PROBE_VALIDATION_IMAGES)
    evaluated = evaluate(load(model), some, task).seconds
    return Probe(
        statistics.median(seconds[_PROBE_WARMUP_STEPS:]) * steps
        + evaluated * len(dataset.validation) / len(some),
        model.count_params(),
    )


@dataclass(frozen=True)
class Executor:
    """Does the jobs of one run.

    Attributes:
        pipeline: what is run.
        store: its results, which jobs work on.
        dataset: its images.
        commit: of the code, as it was when the run began.
    """

    pipeline: Pipeline
    store: Store
    dataset: data.Dataset
    commit: str

    def __post_init__(self) -> None:
        function = self.pipeline.model.reference.function
        if function is not None:
            # The files of finished steps may hold layers that the function's file defines.
            import_layers(str(function.file))

    def check_budget(self) -> None:
        """Checks that the budget limits figures that the run will have, where its model tells them.

        Raises:
            UsageError: it does not.
        """
        budget = self.pipeline.budget
        if budget is None or self.pipeline.figure is not None:
            return
        first = self._start or build_model(
            self.pipeline.model, self.dataset, self.pipeline.seeds[0]
        )
        try:
            budget.of(self._find_task(first).figure)
        except UsageError as error:
            raise UsageError(f"budget.{error}") from None

    def check_formats(self, names: Iterable[str]) -> None:
        """Checks that the model's loops can be written in the formats of some variants.

        Args:
            names: of the variants.

        Raises:
            TfpruneError: one cannot, and no training changes that.
        """
        # Nets of the zoo and of keras.applications have no loops.
        if self._start is None:
            return
        from tfprune.formats.tflite_convert import check_loops

        for name in names:
            _, formats, _ = self.pipeline.delivered(name)
            try:
                if any(FORMATS[form].calibrated for form in formats):
                    check_loops(self._start, integer=True)
                if self.pipeline.batch == "dynamic" and any(map(has_batch, formats)):
                    check_loops(self._start, integer=False)
            except TfpruneError as error:
                raise TfpruneError(f"variants.{name}: {error}") from None

    def do(
        self,
        job: Job,
        label: str | None,
        after: Callable[[float], float] | None,
        folder: Path,
    ) -> dict[str, Any]:
        """Does one job.

        Args:
            job: what to do; all before it is done.
            label: for progress bars; None for silence.
            after: seconds of work after this job, from the seconds an epoch takes.
            folder: where its result goes, with what an earlier attempt left.

        Returns:
            What to record.
        """
        begun = time.perf_counter()
        match job.kind:
            case "step":
                record = self._step(job, folder, label, after)
            case "delivery":
                record = self._deliver(job, folder)
            case "latency":
                record = self._time(job)
            case "device":
                record = self._measure_on(job)
        return {**record, "seconds": time.perf_counter() - begun, "commit": self.commit}

    def _step(
        self,
        job: Job,
        folder: Path,
        label: str | None,
        after: Callable[[float], float] | None,
    ) -> dict[str, Any]:
        model = self._model(job)
        context = Context(
            self.dataset,
            job.seed,
            folder,
            label,
            after,
            partial(self._origin, job),
            partial(self._earlier, job),
            self._find_task,
        )
        step = self.pipeline.steps[job.name]
        model, record = step.perform(model, context)
        save(model, folder)
        model = without_rounding(model)
        counted = parameters(model)
        return {
            "step": job.name,
            "specification": step.model_dump(mode="json"),
            "set": sorted(step.model_dump(exclude_defaults=True)),
            "seed": job.seed,
            "before": job.before[-1].folder.name if job.before else None,
            "macs": counting.count_macs(model).whole_macs,
            "parameters": counted.total,
            "nonzero_parameters": counted.nonzero,
            **record,
        }

    def _model(self, job: Job) -> keras.Model:
        """The model as the job before leaves it."""
        if job.before:
            model = _read_model(self._folder(job.before[-1]) / "model.keras")
        else:
            model = build_model(self.pipeline.model, self.dataset, job.seed)
        if self.pipeline.task is not None:
            compile_for(model, self._find_task(model))
        return model

    def _find_task(self, model: keras.Model) -> tasks.Task:
        """What the models of the run are trained for: as the pipeline or its first model says."""
        return tasks.find_task(model, self.pipeline.task, self.dataset, like=self._start)

    @cached_property
    def _start(self) -> keras.Model | None:
        """The first model, where it is a user's: what it is compiled for holds for all others."""
        if self.pipeline.model.reference.is_net:
            return None
        return build_model(self.pipeline.model, self.dataset, self.pipeline.seeds[0])

    def _earlier(self, job: Job, step: str) -> keras.Model:
        earlier = next(each for each in job.before if each.name == step)
        return _read_model(self._folder(earlier) / "model.keras")

    def _origin(self, job: Job, epoch: int, seed: int) -> keras.Model:
        if epoch:
            return _read_model(kept_model(self._folder(job.before[0]), epoch))
        return build_model(self.pipeline.model, self.dataset, seed)

    def _folder(self, job: Job) -> Path:
        """Where the result of an earlier job lies; a worker fetches what its machine lacks."""
        if not self.store.fetch(job.folder, job.identity, job.shared_name):
            self.store.missing(job.name, job.seed)
        return job.folder

    def _deliver(self, job: Job, folder: Path) -> dict[str, Any]:
        _, formats, images = self.pipeline.delivered(job.name)
        model = self._model(job)
        artifacts = export(
            model,
            folder,
            formats,
            representative_data=self.dataset.train.sample(images).inputs,
            # What calibrated a file cannot show what calibration lost.
            comparison_data=self.dataset.validation.sample(COMPARED_IMAGES).inputs,
            # Of a variant that is delivered in other formats only it says nothing.
            batch=self.pipeline.batch if any(map(has_batch, formats)) else DEFAULT_BATCH,
            **self.pipeline.delivery_options(job.name),
        )
        write_manifest(folder, artifacts)
        found = self._find_task(model)
        model = without_rounding(model)
        by = found.figure
        judged_on = self.dataset.test if job.split == "test" else self.dataset.validation
        if self.dataset.classes:
            write_text(folder / LABELS, "\n".join(self.dataset.classes) + "\n")
        write_text(folder / "sparsity.csv", render(sparsity(model), "csv"))
        return {
            "variant": job.name,
            "seed": job.seed,
            "steps": [each.folder.name for each in job.before],
            "macs": counting.count_macs(model).whole_macs,
            **({} if job.split == "test" else {"measured_on": job.split}),
            **({} if by == figures.ACCURACY else {"task": figures.to_record(by)}),
            "artifacts": [
                {**artifact.to_dict(folder), **_measured(artifact.path, judged_on, found)}
                for artifact in artifacts
            ],
        }

    def _time(self, job: Job) -> dict[str, Any]:
        """Times the artifacts of a seed whose time says something; see `measure.time_files`."""
        measured: dict[str, dict[str, float]] = {}
        files: dict[str, Path] = {}
        for delivery in job.before:
            record = read_record(delivery.folder / RECORD, DeliveryRecord)
            by = figures.from_record(record.get("task"))
            for each in record["artifacts"]:
                path = (delivery.folder / each["path"]).relative_to(self.store.directory).as_posix()
                measured[path] = {by.name: each[by.record_key]}
                if FORMATS[each["format"]].timed:
                    files[path] = self.store.directory / path
        files = dict(sorted(files.items()))
        example = data.mapped(lambda leaf: leaf[0], self.dataset.test.sample(1).inputs)
        table = time_files(files, example, rounds=_LATENCY_ROUNDS)
        # All that a seed delivers is in its place by now.
        write_run_manifest(self.store.directory, measured)
        return {"latency": table.to_dict("records"), "machine": provenance.machine()}

    def _measure_on(self, job: Job) -> dict[str, Any]:
        """Measures the artifacts of a seed on a device, those in the formats that it runs."""
        delivered = [
            (each.folder, read_record(each.folder / RECORD, DeliveryRecord)) for each in job.before
        ]
        device = self.pipeline.device(job.name)
        if said := device.missing():
            return left_out(said, job.seed)
        found = device.find()
        told = told_by(found, job.name, self.store.directory, delivered, job.seed)
        if device.optional and not told["measured"]:
            return left_out(f"it {none_delivered(found.formats)}", job.seed)
        return told


def _read_model(path: Path) -> keras.Model:
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


def _measured(path: Path, test: data.Split, task: tasks.Task) -> dict[str, Any]:
    evaluation = evaluate(load(path), test, task)
    counted = parameters(path)
    return {
        evaluation.figure: evaluation.value,
        "loss": evaluation.loss,
        "test_images": evaluation.examples,
        "test_seconds": evaluation.seconds,
        "parameters": counted.total,
        "nonzero_parameters": counted.nonzero,
    }
