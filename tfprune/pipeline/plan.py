"""What a run has to do: its jobs in order, each known by a hash before it is done.

Nothing here loads a model, an image or TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tfprune.files import document_hash, existing, sha256
from tfprune.formats import FORMATS
from tfprune.formats.registry import QUANTIZER
from tfprune.model.reference import imports
from tfprune.pipeline import on_devices
from tfprune.pipeline.expansion import Chain
from tfprune.pipeline.provenance import versions
from tfprune.pipeline.spec import DeviceSpec, Pipeline
from tfprune.pipeline.store import finished
from tfprune.report.run import DEVICES, TRIALS
from tfprune.vocabulary import RECIPES

# Change whenever a job would give another result for the same specification: the first for all
# jobs, the others for deliveries and latencies. Each kind of step has a revision of its own,
# and so have measurements on devices.
_REVISION = 2
_DELIVERY_REVISION = 3
_LATENCY_REVISION = 2


JudgedOn: TypeAlias = Literal["test", "validation"]


@dataclass(frozen=True)
class Job:
    """One thing to do, once; a task (`tfprune.tasks`) is what a model is trained for.

    Attributes:
        kind: "step" changes a model, "delivery" exports and measures a variant, "latency" times
            all artifacts of a seed, "device" measures those that run there on a device.
        name: of the step, the variant or the device.
        variant: the first variant that needs it; empty for "latency" and "device".
        seed: of the run.
        folder: where its result goes.
        identity: the hash of all that its result depends on.
        after: the step whose model it works on; None where it starts from the pipeline's model.
        timed: of "latency" and "device", the deliveries whose artifacts are measured.
        split: of "delivery", the examples that its artifacts are measured on.
    """

    kind: Literal["step", "delivery", "latency", "device"]
    name: str
    variant: str
    seed: int
    folder: Path
    identity: str
    # Chains are told by their last link: written out, those of many rounds would be quadratic.
    after: Job | None = field(default=None, repr=False, compare=False)
    timed: tuple[Job, ...] = field(default=(), repr=False, compare=False)
    split: JudgedOn = "test"

    @property
    def before(self) -> tuple[Job, ...]:
        """The jobs whose results it works on; those of a step are its chain, in order."""
        return self.timed or tuple(self._backwards())[::-1]

    def _backwards(self) -> Iterator[Job]:
        step = self.after
        while step is not None:
            yield step
            step = step.after

    @property
    def finished(self) -> bool:
        """Whether its result lies in its folder."""
        return finished(self.folder, self.identity)

    def describe(self, pipeline: Pipeline) -> str:
        """The job in a few words."""
        if self.kind == "latency":
            return f"seed {self.seed}: latency of all artifacts, in turn"
        if self.kind == "device":
            return f"seed {self.seed}: all artifacts on {self.name}"
        what = "export and measure"
        if self.kind == "step":
            what = f"{self.name} ({pipeline.steps[self.name].kind})"
        return f"{self.variant}, seed {self.seed}: {what}"


def plan(
    pipeline: Pipeline,
    directory: Path,
    images: str,
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    split: JudgedOn = "test",
) -> list[Job]:
    """The jobs of a run, finished or not.

    Args:
        pipeline: what to run.
        directory: of the run.
        images: the hash of the images.
        seeds: instead of the pipeline's.
        only: just these variants; empty for all.
        split: the examples that artifacts are measured on. Who chooses among variants gives
            "validation": these deliveries lie apart, in `TRIALS`, and are part of no report.

    Returns:
        The jobs in the order to do them; what variants share comes once.

    Raises:
        TfpruneError: the file that the pipeline's model is in does not exist.
    """
    jobs: dict[tuple[Path, str], Job] = {}
    model, trained_for = pipeline.model.identity(), _task_identity(pipeline)
    for seed in seeds or pipeline.seeds:
        start = document_hash(
            {
                "revision": _REVISION,
                "images": images,
                "model": model,
                **trained_for,
                "seed": seed,
                "versions": _relevant("keras", "tensorflow"),
            }
        )
        steps = _Steps(pipeline, directory, seed, start)
        deliveries = []
        for variant in pipeline.variants:
            delivery = _delivery(pipeline, directory, variant, seed, start, steps, split)
            # What is delivered already is timed with the rest, so that figures can be compared.
            if only and variant not in only:
                if delivery.finished:
                    deliveries.append(delivery)
                continue
            for job in _missing(jobs, delivery):
                jobs[job.folder, job.identity] = replace(job, variant=variant)
            deliveries.append(delivery)
        timing = _latency(directory, seed, deliveries)
        jobs[timing.folder, timing.identity] = timing
        for device in pipeline.devices:
            job = _on_device(directory, device, seed, deliveries)
            jobs[job.folder, job.identity] = job
    return list(jobs.values())


def _task_identity(pipeline: Pipeline) -> dict[str, Any]:
    """What results depend on of `[task]`: its table, and the files of its functions."""
    if pipeline.task is None:
        return {}
    table = pipeline.task.model_dump(mode="json", exclude_defaults=True)
    files = pipeline.task.files()
    beside = {str(file): found for file in files if (found := imports(file))}
    return {
        "task": table,
        "files": {str(file): sha256(file) for file in files},
        **({"beside": beside} if beside else {}),
    }


def _missing(jobs: Mapping[tuple[Path, str], Job], delivery: Job) -> list[Job]:
    """A delivery and those steps before it that are not jobs yet, in the order to do them."""
    found = [delivery]
    while (step := found[-1].after) is not None and (step.folder, step.identity) not in jobs:
        found.append(step)
    return found[::-1]


class _Steps:
    """The steps of a seed, each once: what chains begin with alike, they share.

    Args:
        pipeline: what to run.
        directory: of the run.
        seed: of the run.
        start: the identity of the model that chains start from.
    """

    def __init__(self, pipeline: Pipeline, directory: Path, seed: int, start: str) -> None:
        self._pipeline = pipeline
        self._directory = directory
        self._seed = seed
        self._start = start
        self._made: dict[tuple[str, str], Job] = {}
        # Where a chain is after so many rounds, so that the next one goes on from there.
        self._rounds: dict[tuple[Any, ...], Job | None] = {}
        # Without defaults: a release that adds an option does not undo what was done before.
        self._said = {
            name: step.model_dump(mode="json", exclude_defaults=True)
            | ({"revision": step.revision} if step.revision else {})
            for name, step in pipeline.steps.items()
        }

    def along(self, chain: Chain, variant: str) -> Job | None:
        """The last step of a chain; None for one without steps."""
        begun = 0
        last = self._all(None, chain.start, variant)
        for times in range(chain.times, 0, -1):
            if (chain.start, chain.repeat, times) in self._rounds:
                begun, last = times, self._rounds[chain.start, chain.repeat, times]
                break
        for times in range(begun + 1, chain.times + 1):
            last = self._all(last, chain.repeat, variant)
            self._rounds[chain.start, chain.repeat, times] = last
        return self._all(last, chain.end, variant)

    def _all(self, last: Job | None, names: Iterable[str], variant: str) -> Job | None:
        for name in names:
            last = self._after(last, name, variant)
        return last

    def _after(self, last: Job | None, name: str, variant: str) -> Job:
        before = self._start if last is None else last.identity
        if (before, name) not in self._made:
            identity = document_hash({"after": before, "step": self._said[name]})
            folder = self._directory / "steps" / f"{name}-{identity}"
            self._made[before, name] = Job(
                "step", name, variant, self._seed, folder, identity, last
            )
        return self._made[before, name]


def _delivery(
    pipeline: Pipeline,
    directory: Path,
    variant: str,
    seed: int,
    start: str,
    steps: _Steps,
    split: JudgedOn,
) -> Job:
    """The delivery of a variant, after the last of its steps."""
    chain, formats, images = pipeline.delivered(variant)
    last = steps.along(chain, variant)
    optional = [package for name in formats for package in FORMATS[name].packages]
    identity = document_hash(
        {
            "after": start if last is None else last.identity,
            "revision": _DELIVERY_REVISION,
            "formats": formats,
            "batch": pipeline.batch,
            "images": images,
            "versions": _relevant("ai-edge-litert", *optional),
            **({} if split == "test" else {"split": split}),
            **_delivery_options(pipeline, variant),
        }
    )
    within = directory if split == "test" else directory / TRIALS
    folder = within / variant / f"seed-{seed}"
    return Job("delivery", variant, variant, seed, folder, identity, last, split=split)


def _delivery_options(pipeline: Pipeline, variant: str) -> dict[str, Any]:
    """What a delivery depends on beside its formats; of a recipe in a file, its content."""
    options = pipeline.delivery_options(variant)
    if not options:
        return {}
    if "recipe" in options and options["recipe"] not in RECIPES:
        options["recipe"] = sha256(existing(Path(options["recipe"])))
    return {**options, "quantizer": _relevant(QUANTIZER)}


def _latency(directory: Path, seed: int, deliveries: Iterable[Job]) -> Job:
    deliveries = tuple(deliveries)
    timed = [[job.name, job.identity] for job in deliveries]
    identity = document_hash({"revision": _LATENCY_REVISION, "timed": timed})
    folder = directory / "latency" / f"seed-{seed}"
    return Job("latency", "latency", "", seed, folder, identity, timed=deliveries)


def _on_device(directory: Path, device: DeviceSpec, seed: int, deliveries: Iterable[Job]) -> Job:
    deliveries = tuple(deliveries)
    identity = on_devices.identity(device, ([job.name, job.identity] for job in deliveries))
    folder = directory / DEVICES / device.title / f"seed-{seed}"
    return Job("device", device.title, "", seed, folder, identity, timed=deliveries)


def _relevant(*packages: str) -> dict[str, str]:
    installed = versions()
    return {package: installed[package] for package in packages}
