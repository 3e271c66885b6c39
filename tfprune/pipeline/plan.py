"""What a run has to do: its tasks in order, each known by a hash before it is done.

Nothing here loads a model, an image or TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tfprune.artifacts.installed import EXTRAS
from tfprune.files import sha256
from tfprune.pipeline.provenance import versions
from tfprune.pipeline.spec import ModelSpec, Pipeline
from tfprune.pipeline.store import finished, key

# Change whenever a task would give another result for the same specification: the first for all
# tasks, the others for the steps of a kind and what comes after them, the last for deliveries.
_REVISION = 2
_REVISIONS = {"learn": 1, "slim": 2}
_DELIVERY_REVISION = 1


@dataclass(frozen=True)
class Task:
    """One thing to do, once.

    Attributes:
        kind: "step" changes a model, "delivery" exports and measures a variant, "latency" times
            all artifacts of a seed in turn.
        name: of the step or the variant.
        variant: the first variant that needs it; empty for "latency".
        seed: of the run.
        folder: where its result goes.
        identity: the hash of all that its result depends on.
        before: the tasks whose results it works on; those of a step are its chain, in order.
    """

    kind: Literal["step", "delivery", "latency"]
    name: str
    variant: str
    seed: int
    folder: Path
    identity: str
    before: tuple[Task, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether its result lies in its folder."""
        return finished(self.folder, self.identity)

    def describe(self, pipeline: Pipeline) -> str:
        """The task in a few words."""
        if self.kind == "latency":
            return f"seed {self.seed}: latency of all artifacts, in turn"
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
) -> list[Task]:
    """The tasks of a run, finished or not.

    Args:
        pipeline: what to run.
        directory: of the run.
        images: the hash of the images.
        seeds: instead of the pipeline's.
        only: just these variants; empty for all.

    Returns:
        The tasks in the order to do them; what variants share comes once.

    Raises:
        TfpruneError: the `.keras` file that the pipeline starts from does not exist.
    """
    tasks: dict[tuple[Path, str], Task] = {}
    model = _model(pipeline.model)
    for seed in seeds or pipeline.seeds:
        start = key(
            {
                "revision": _REVISION,
                "images": images,
                "model": model,
                "seed": seed,
                "versions": _relevant("keras", "tensorflow"),
            }
        )
        deliveries = []
        for variant in pipeline.variants:
            *chain, delivery = _variant(pipeline, directory, variant, seed, start)
            # What is delivered already is timed with the rest, so that figures can be compared.
            if only and variant not in only:
                if delivery.finished:
                    deliveries.append(delivery)
                continue
            for task in (*chain, delivery):
                tasks.setdefault((task.folder, task.identity), task)
            deliveries.append(delivery)
        tasks_of_seed = _latency(directory, seed, deliveries)
        tasks[tasks_of_seed.folder, tasks_of_seed.identity] = tasks_of_seed
    return list(tasks.values())


def _variant(
    pipeline: Pipeline, directory: Path, variant: str, seed: int, identity: str
) -> list[Task]:
    """The steps of a variant, and its delivery."""
    names, formats, images = pipeline.delivered(variant)
    chain: list[Task] = []
    for name in names:
        # Without defaults: a release that adds an option does not undo what was done before.
        said = pipeline.steps[name].model_dump(mode="json", exclude_defaults=True)
        if revision := _REVISIONS.get(pipeline.steps[name].kind):
            said["revision"] = revision
        identity = key({"after": identity, "step": said})
        folder = directory / "steps" / f"{name}-{identity}"
        chain.append(Task("step", name, variant, seed, folder, identity, tuple(chain)))
    optional = [package for name in formats for package in EXTRAS.get(name, ())]
    identity = key(
        {
            "after": identity,
            "revision": _DELIVERY_REVISION,
            "formats": formats,
            "images": images,
            "versions": _relevant("ai-edge-litert", *optional),
        }
    )
    folder = directory / variant / f"seed-{seed}"
    return [*chain, Task("delivery", variant, variant, seed, folder, identity, tuple(chain))]


def _latency(directory: Path, seed: int, deliveries: Iterable[Task]) -> Task:
    deliveries = tuple(deliveries)
    identity = key([[task.name, task.identity] for task in deliveries])
    folder = directory / "latency" / f"seed-{seed}"
    return Task("latency", "latency", "", seed, folder, identity, deliveries)


def _model(spec: ModelSpec) -> dict[str, Any]:
    if spec.path is None:
        return spec.model_dump(mode="json")
    return {"sha256": sha256(spec.path)}


def _relevant(*packages: str) -> dict[str, str]:
    installed = versions()
    return {package: installed[package] for package in packages}
