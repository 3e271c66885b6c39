"""A run as it lies on disk, read once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfprune.devices.registry import find_kind
from tfprune.errors import TfpruneError
from tfprune.figures import ACCURACY, Figure, from_record
from tfprune.files import RECORD
from tfprune.pipeline.steps import is_empty, read_step
from tfprune.report.records import (
    DeliveryRecord,
    DeviceMeasurements,
    LatencyRecord,
    RunRecord,
    StepRecord,
    read_record,
)

RUN = "run.json"
# Beside the variants of a run.
LATENCY = "latency"
DEVICES = "devices"
# What a search tried: measured on validation examples, and no part of a report.
TRIALS = "trials"
# Of more missing variants only the number is given.
_NOTED = 8


@dataclass(frozen=True)
class Step:
    """One finished step.

    Attributes:
        folder: where it lies, `RUN/steps/NAME-HASH`.
        record: step, specification, seed, before, seconds, commit, macs,
            parameters, nonzero_parameters; a step that trains adds epochs, seconds_per_epoch,
            history (lists, one entry an epoch) and, with early stopping, best_epoch; one that
            removes channels adds removed, dead_units, inexact and validation_FIGURE, such as
            validation_accuracy.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def specification(self) -> dict[str, Any]:
        """The step's table in the pipeline, defaults included."""
        return dict(self.record.get("specification", {}))

    @property
    def given(self) -> tuple[str, ...]:
        """The keys of its specification that were set, in its order, without `kind`.

        Those that differ from their defaults; of an older record, those that are not empty.
        """
        known = self.record.get("set")
        return tuple(
            key
            for key, value in self.specification.items()
            if key != "kind" and (not is_empty(value) if known is None else key in known)
        )

    @property
    def left_row(self) -> int:
        """The row of its history whose weights it left: the best epoch's after early stopping.

        It may be counted from the end: without early stopping it is the last one, -1.
        """
        best = self.record.get("best_epoch")
        epochs = (self.record.get("history") or {}).get("epoch", [])
        return epochs.index(best) if best in epochs else -1


@dataclass(frozen=True)
class Delivery:
    """One variant of one seed: exported and measured.

    Attributes:
        folder: where its artifacts lie, `RUN/VARIANT/seed-N`.
        record: variant, seed, steps (names of folders), macs, artifacts: a list of what each
            file is and what was measured on it, and task: the figure that it is compared by
            (`tfprune.figures.to_record`), where that is not the accuracy.
        steps: the chain that made it, in order.
    """

    folder: Path
    record: dict[str, Any]
    steps: tuple[Step, ...]

    @property
    def variant(self) -> str:
        """The variant's name."""
        return str(self.record["variant"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.record["seed"])

    @property
    def figure(self) -> Figure:
        """What it is compared by."""
        return from_record(self.record.get("task"))


@dataclass(frozen=True)
class Lacking:
    """Something that a run plans and does not have.

    Attributes:
        variant: of the pipeline.
        seed: of the run.
        artifact: a format; empty where the run does not say which formats it delivers.
    """

    variant: str
    seed: int
    artifact: str


@dataclass(frozen=True)
class Run:
    """A run, finished or not.

    Attributes:
        directory: its folder.
        record: `run.json`: name, pipeline (the whole specification), seeds, data (a note), and
            sessions, one a start that had something to do: command, commit, versions, machine,
            seeds, begun, and ended, None where it goes on or was killed.
        deliveries: what is finished, in the order of the pipeline's variants, then of seeds.
        latency: the timing of each artifact, by its path relative to `directory`.
        on_devices: what devices told of artifacts, in the order of the pipeline's devices, then of
            seeds; keys as in `tfprune.report.records.MeasuredOnDevice`, with the seed.
        left_out: why nothing was measured on an optional device, by what tables call it.
        apart: what was measured by another figure than the first of `deliveries`, and cannot stand
            beside it.
    """

    directory: Path
    record: dict[str, Any]
    deliveries: tuple[Delivery, ...]
    latency: dict[str, dict[str, Any]]
    apart: tuple[Delivery, ...] = ()
    on_devices: tuple[dict[str, Any], ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def devices(self) -> dict[str, tuple[str, ...]]:
        """The formats that each device of the run takes, by what tables call the device."""
        return {
            device_title(device): find_kind(device["name"]).formats
            for device in _devices(self.record)
        }

    @property
    def figure(self) -> Figure:
        """What its deliveries are compared by: the figure of the task."""
        return self.deliveries[0].figure if self.deliveries else ACCURACY

    def latency_of(
        self, delivery: Delivery, artifact: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The timing of an artifact; None where it was not timed.

        Args:
            delivery: one of `deliveries`.
            artifact: an entry of its artifacts.
        """
        path = (delivery.folder / artifact["path"]).relative_to(self.directory)
        return self.latency.get(path.as_posix())

    @property
    def lacking(self) -> tuple[Lacking, ...]:
        """The artifacts that the pipeline plans and that are not there, in its order."""
        there = {
            (delivery.variant, delivery.seed, form)
            for delivery in self.deliveries
            # The empty one stands for a delivery in any format.
            for form in ("", *(artifact["format"] for artifact in delivery.record["artifacts"]))
        }
        return tuple(
            Lacking(variant, seed, form)
            for variant, forms in planned_formats(self.record["pipeline"]).items()
            for seed in planned_seeds(self.record)
            for form in forms or ("",)
            if (variant, seed, form) not in there
        )

    @property
    def untimed(self) -> tuple[int, ...]:
        """The seeds with an artifact of the pipeline whose latency was not measured."""
        return tuple(
            dict.fromkeys(
                delivery.seed
                for delivery in self.deliveries
                for artifact in delivery.record["artifacts"]
                if delivery.variant in self.record["pipeline"]["variants"]
                and self.latency_of(delivery, artifact) is None
            )
        )

    def notes(self) -> list[str]:
        """What is missing of the run, one line for each variant."""
        by_variant: dict[str, dict[int, list[str]]] = {}
        for gap in self.lacking:
            by_variant.setdefault(gap.variant, {}).setdefault(gap.seed, []).append(gap.artifact)
        name = self.directory.resolve().name
        lines = [
            f"{name}: {variant} is missing for {_seeds(seeds)}{_formats(seeds.values())}: "
            "run the pipeline to its end"
            for variant, seeds in list(by_variant.items())[:_NOTED]
        ]
        if len(by_variant) > _NOTED:
            lines.append(f"{name}: {len(by_variant) - _NOTED} more variants are missing")
        lines += [
            f"{name}: {variant} was measured by {figure.description}, and not by "
            f"{self.figure.description}: it is left out"
            for variant, figure in {each.variant: each.figure for each in self.apart}.items()
        ]
        if self.untimed:
            lines.append(
                f"{name}: latency is missing for {_seeds(self.untimed)}: "
                "run the pipeline to its end"
            )
        sessions = self.record["sessions"]
        if sessions and sessions[-1].get("ended", "") is None:
            lines.append(
                f"{name}: its last session was killed or is going on, so figures may be of before: "
                "run the pipeline to its end"
            )
        return lines


def _seeds(seeds: Any) -> str:
    seeds = list(seeds)
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _formats(lists: Any) -> str:
    named = dict.fromkeys(form for forms in lists for form in forms if form)
    return f" ({', '.join(named)})" if named else ""


def own_formats(last: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The formats that a chain's last step sets for its variant.

    Args:
        last: the step's table; None for a chain without steps.

    Returns:
        The formats; None where the step changes the model, and the pipeline's own formats hold.
    """
    step = None if last is None else read_step(last)
    return None if step is None else step.delivered_formats


def planned_formats(pipeline: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The formats that each variant of a recorded pipeline is delivered in, by variant.

    Args:
        pipeline: as `run.json` holds it.
    """
    steps, found = pipeline.get("steps", {}), {}
    for variant, chain in pipeline["variants"].items():
        own = own_formats(steps.get(chain[-1])) if chain else None
        found[variant] = tuple(pipeline.get("formats", ())) if own is None else own
    return found


def planned_seeds(record: Mapping[str, Any]) -> list[int]:
    """The seeds that a complete run has.

    Seeds that were asked for instead of the pipeline's are a plan of their own; a part of the
    pipeline's seeds is a part of its plan.

    Args:
        record: `run.json`.
    """
    own, asked = record["pipeline"].get("seeds", []), record["seeds"]
    return list(own) if set(asked) < set(own) else list(asked)


def read_run(directory: Path) -> Run:
    """Reads the records of a run.

    Example:
        >>> run = read_run(Path("saved_models/digits"))
        >>> [delivery.variant for delivery in run.deliveries]
        ['dense', 'weights-80']

    Args:
        directory: the folder of a run.

    Raises:
        TfpruneError: it is not a run, no variant of it is finished, or a record is damaged.
    """
    found = list(deliveries(directory))
    if not found and not (directory / RUN).exists():
        raise TfpruneError(_not_a_run(directory))
    record = read_record(directory / RUN, RunRecord)
    if not found:
        raise TfpruneError(_not_a_run(directory))
    rank = {variant: place for place, variant in enumerate(record["pipeline"]["variants"])}
    found.sort(key=lambda each: (rank.get(each[1]["variant"], len(rank)), each[1]["seed"]))
    steps: dict[str, Step] = {}

    def step(name: str) -> Step:
        if name not in steps:
            folder = directory / "steps" / name
            steps[name] = Step(folder, read_record(folder / RECORD, StepRecord))
        return steps[name]

    read = [
        Delivery(folder, delivered, tuple(step(name) for name in delivered["steps"]))
        for folder, delivered in found
    ]
    # Figures of two kinds in one column would be compared with one another.
    alike = [each.figure.is_same(read[0].figure) for each in read]
    return Run(
        directory,
        record,
        tuple(itertools.compress(read, alike)),
        {
            row["runtime"]: row
            for path in sorted(directory.glob(f"{LATENCY}/seed-*/{RECORD}"))
            for row in read_record(path, LatencyRecord)["latency"]
        },
        tuple(each for each, same in zip(read, alike, strict=True) if not same),
        tuple(_told_by_devices(directory, record, read)),
        {
            title: found["missing"]
            for title, found in _device_records(directory, record)
            if found.get("missing")
        },
    )


def _devices(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The devices of the pipeline, then those that were asked for later."""
    own = record["pipeline"].get("devices", [])
    titles = {device_title(device) for device in own}
    later = [each for each in record.get("devices", []) if device_title(each) not in titles]
    return [*own, *later]


def device_title(device: Mapping[str, Any]) -> str:
    """What tables, folders and budgets call a device of a recorded pipeline."""
    return str(device.get("label") or device["name"])


def _told_by_devices(
    directory: Path, record: Mapping[str, Any], delivered: Iterable[Delivery]
) -> Iterator[dict[str, Any]]:
    """What the devices of a run told of the files that are delivered, and of none before them."""
    files = {
        (delivery.folder / artifact["path"], artifact["sha256"])
        for delivery in delivered
        for artifact in delivery.record["artifacts"]
    }
    for _, found in _device_records(directory, record):
        for row in found["measured"]:
            if (directory / row["artifact"], row["sha256"]) in files:
                yield {**row, "seed": found["seed"]}


def _device_records(
    directory: Path, record: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of each device of a run, with what tables call the device."""
    for device in _devices(record):
        title = device_title(device)
        for path in sorted(directory.glob(f"{DEVICES}/{title}/seed-*/{RECORD}")):
            yield title, read_record(path, DeviceMeasurements)


def _not_a_run(directory: Path) -> str:
    return (
        f"{directory} holds no finished variant: give the directory of a run, such as "
        "saved_models/digits, or run its pipeline first"
    )


def _delivery(path: Path) -> dict[str, Any]:
    record = read_record(path, DeliveryRecord)
    place = f"{record['variant']}/seed-{record['seed']}"
    if path.parent.parts[-2:] != tuple(place.split("/")):
        raise TfpruneError(
            f"{path} is damaged (it is the record of {place}): delete its folder and run again"
        )
    return record


def deliveries(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of a run's delivered variants, each with its record.

    Args:
        directory: of the run.

    Raises:
        TfpruneError: a record is damaged.
    """
    for path in sorted(directory.glob(f"*/seed-*/{RECORD}")):
        if path.parts[-3] != LATENCY:
            yield path.parent, _delivery(path)
