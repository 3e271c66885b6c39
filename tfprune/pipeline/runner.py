"""Runs a pipeline: every step once, every variant exported and measured, one table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras

from tfprune import data, graph
from tfprune.artifacts import export, write_manifest
from tfprune.errors import TfpruneError, UsageError, did_you_mean
from tfprune.files import write_json, write_text
from tfprune.measure import evaluate, latency, load, parameters, sparsity
from tfprune.pipeline import provenance, steps
from tfprune.pipeline.spec import Pipeline
from tfprune.pipeline.store import SCRATCH, finish, finished, key
from tfprune.report import write_report

# Changes whenever a step would give another result for the same specification.
_REVISION = 1
_CALIBRATION_IMAGES = 500
# Enough rounds for a steady median, little enough to be quick beside the training.
_LATENCY_ROUNDS = 200


class _Run:
    """One run of a pipeline into one directory."""

    def __init__(
        self,
        pipeline: Pipeline,
        directory: Path,
        dataset: data.Dataset,
        say: Callable[[str], None],
        progress: bool,
    ) -> None:
        self.pipeline = pipeline
        self.directory = directory
        self.dataset = dataset
        self.say = say
        self.progress = progress
        # Before the work: files may be edited while it lasts.
        self.commit = provenance.commit()

    def chain(self, variant: str, seed: int) -> tuple[list[Path], str]:
        """Does the steps of a variant that are not done yet; their folders and the last key."""
        identity = key(
            {
                "revision": _REVISION,
                "data": self.pipeline.data.model_dump(),
                "note": self.dataset.note,
                "model": self.pipeline.model.model_dump(),
                "seed": seed,
                "versions": provenance.versions(),
            }
        )
        folders: list[Path] = []
        for name in self.pipeline.variants[variant]:
            step = self.pipeline.steps[name]
            identity = key({"after": identity, "step": step.model_dump()})
            folder = self.directory / "steps" / f"{name}-{identity}"
            before = folders[-1] if folders else None
            if not finished(folder, identity):
                self.say(f"{variant}, seed {seed}: {name} ({step.kind})")
            finish(folder, identity, partial(self._step, name, before, seed))
            folders.append(folder)
        return folders, identity

    def _step(self, name: str, before: Path | None, seed: int, folder: Path) -> dict[str, Any]:
        begun = time.perf_counter()
        if before is None:
            model = steps.build(self.pipeline.model, self.dataset, seed)
        else:
            model = keras.saving.load_model(before / "model.keras")
        bench = steps.Bench(
            self.dataset,
            seed,
            folder / SCRATCH,
            f"{name} (seed {seed})" if self.progress else None,
        )
        model, record = steps.perform(self.pipeline.steps[name], model, bench)
        export(model, folder, ["keras"])
        return {
            "step": name,
            "specification": self.pipeline.steps[name].model_dump(mode="json"),
            "seed": seed,
            "before": before.name if before else None,
            "seconds": time.perf_counter() - begun,
            "commit": self.commit,
            **steps.described(model),
            **record,
        }

    def deliver(self, variant: str, seed: int) -> None:
        """Exports a variant and measures every artifact on the test set."""
        folders, identity = self.chain(variant, seed)
        identity = key({"after": identity, "formats": self.pipeline.formats})
        folder = self.directory / variant / f"seed-{seed}"
        if not finished(folder, identity):
            self.say(f"{variant}, seed {seed}: export and measure")
        finish(folder, identity, partial(self._deliver, variant, seed, folders))

    def _deliver(
        self, variant: str, seed: int, folders: list[Path], folder: Path
    ) -> dict[str, Any]:
        model = keras.saving.load_model(folders[-1] / "model.keras")
        artifacts = export(
            model,
            folder,
            self.pipeline.formats,
            representative_data=self.dataset.train.images[:_CALIBRATION_IMAGES],
        )
        write_manifest(folder, artifacts)
        write_text(folder / "labels.txt", "\n".join(self.dataset.classes) + "\n")
        sparsity(model).to_csv(folder / "sparsity.csv", index=False)
        test = self.dataset.test
        measured = []
        for artifact in artifacts:
            evaluation = evaluate(load(artifact.path), test.images, test.labels)
            counted = parameters(artifact.path)
            measured.append(
                {
                    **artifact.to_dict(folder),
                    "accuracy": evaluation.accuracy,
                    "loss": evaluation.loss,
                    "test_images": evaluation.images,
                    "test_seconds": evaluation.seconds,
                    "parameters": counted.total,
                    "nonzero_parameters": counted.nonzero,
                }
            )
        return {
            "variant": variant,
            "seed": seed,
            "steps": [each.name for each in folders],
            "macs": graph.macs(model),
            "artifacts": measured,
        }

    def time(self, seed: int) -> None:
        """Times all artifacts of a seed in turn, so that the machine's drift falls on all alike."""
        files = [
            path
            for variant in self.pipeline.variants
            for path in sorted((self.directory / variant / f"seed-{seed}").glob("model*"))
        ]
        names = [path.relative_to(self.directory).as_posix() for path in files]
        identity = key(
            [[name, path.stat().st_mtime_ns] for name, path in zip(names, files, strict=True)]
        )
        folder = self.directory / "latency" / f"seed-{seed}"

        def make(_: Path) -> dict[str, Any]:
            self.say(f"seed {seed}: latency of {len(files)} artifacts, in turn")
            runtimes = {name: load(path) for name, path in zip(names, files, strict=True)}
            table = latency(runtimes, self.dataset.test.images[0], rounds=_LATENCY_ROUNDS)
            return {"latency": table.to_dict("records"), "machine": provenance.machine()}

        finish(folder, identity, make)


def run(
    pipeline: Pipeline,
    *,
    out: Path = Path("saved_models"),
    data_dir: str | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> Path:
    """Runs a pipeline, or what is missing of it.

    Args:
        pipeline: what to run.
        out: the run is written to `out / pipeline.name`.
        data_dir: where tensorflow-datasets keeps its data; see `tfprune.data.load`.
        seeds: instead of the pipeline's.
        only: just these variants; empty for all.
        say: told in one line what happens next.
        progress: whether to show progress bars on stderr.

    Returns:
        The directory of the run: a folder a variant and seed with its artifacts, `steps/` with
        every finished step, and the report.

    Raises:
        UsageError: a variant is unknown.
        TfpruneError: data is missing, or the directory cannot be written.
    """
    for variant in only:
        if variant not in pipeline.variants:
            raise UsageError(
                f"the pipeline {pipeline.name!r} has no variant {variant!r}: "
                f"{did_you_mean(variant, pipeline.variants)}"
            )
    directory = out / pipeline.name
    _writable(directory)
    spec = pipeline.data
    dataset = data.load(
        spec.name,
        data_dir,
        validation=spec.validation,
        image_size=spec.image_size,
        limit=spec.limit,
    )
    say(dataset.note)
    this = _Run(pipeline, directory, dataset, say, progress)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    for seed in seeds or pipeline.seeds:
        for variant in only or pipeline.variants:
            this.deliver(variant, seed)
        this.time(seed)
    write_json(
        directory / "run.json",
        {
            "name": pipeline.name,
            "pipeline": pipeline.model_dump(mode="json"),
            "seeds": list(seeds or pipeline.seeds),
            "data": dataset.note,
            "sessions": [
                {
                    "command": provenance.command(),
                    "commit": this.commit,
                    "versions": provenance.versions(),
                    "machine": provenance.machine(),
                    "seeds": list(seeds or pipeline.seeds),
                    "begun": begun,
                    "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            ],
        },
    )
    write_report(directory)
    return directory


def _writable(directory: Path) -> None:
    """Fails before hours of training instead of after."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TfpruneError(
            f"{directory} cannot be written ({error.strerror}): "
            "give --out a directory you can write to"
        ) from error
