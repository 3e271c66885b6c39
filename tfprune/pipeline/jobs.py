"""What a run has to do: its jobs, each known by a hash before it is done, and which one is next.

Nothing here loads a model, an image or TensorFlow.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tfprune.files import document_hash, existing, sha256
from tfprune.formats import FORMATS
from tfprune.model.reference import imports
from tfprune.pipeline import on_devices
from tfprune.pipeline.expansion import Chain
from tfprune.pipeline.provenance import versions
from tfprune.pipeline.shared import SUFFIX
from tfprune.pipeline.spec import DeviceSpec, Pipeline
from tfprune.pipeline.store import is_finished
from tfprune.report.run import DEVICES, TRIALS
from tfprune.vocabulary import QUANTIZER, RECIPES

# Change whenever a job would give another result for the same specification: the first for all
# jobs, the others for deliveries and latencies. Each kind of step has a revision of its own,
# and so have measurements on devices.
_REVISION = 3
_DELIVERY_REVISION = 5
_LATENCY_REVISION = 2

JudgedOn: TypeAlias = Literal["test", "validation"]

MOST_LOSSES = 3
"""How often a job may lose its worker before the run ends with an error."""


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
    # A chain is known by its last link: written out, those of many rounds would be quadratic.
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
        return is_finished(self.folder, self.identity)

    @property
    def shared_name(self) -> str | None:
        """What its result is called in a shared store; None for what one machine measured.

        Records name the steps before them, so the name holds these names beside the identity.
        """
        if self.kind not in ("step", "delivery"):
            return None
        named = document_hash([each.name for each in self.before])
        return f"{self.kind}/{self.name}/seed-{self.seed}-{self.identity}-{named}{SUFFIX}"

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


def plan_jobs(
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


class Schedule:
    """The order in which the jobs of a plan are given to workers.

    A job is ready when all jobs are done whose results it works on. Of the ready ones that with the
    longest chain behind it comes first, because the run cannot be shorter than its longest chain;
    of equals the one that the plan names first. All operations together take O(n log n) for a plan
    of n jobs. It touches no file, no process and no clock.

    Example:
        ```python
        schedule = Schedule(jobs)
        while not schedule.is_over:
            while (place := schedule.take()) is not None:
                ...  # begin jobs[place] on a free worker
            schedule.done(place)  # or schedule.lost(place), which gives it back
        ```

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
