"""A run as it lies on disk: what its folders say of themselves, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, read_json

RUN = "run.json"


@dataclass(frozen=True)
class Step:
    """One finished step.

    Attributes:
        folder: where it lies, `RUN/steps/NAME-HASH`.
        record: what it says of itself: step, specification, seed, before, seconds, commit, macs,
            parameters, nonzero_parameters; a step that trains adds epochs, seconds_per_epoch and
            history (lists, one entry an epoch), one that removes channels adds removed,
            dead_units, inexact and validation_accuracy.
    """

    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Delivery:
    """One variant of one seed: exported and measured.

    Attributes:
        folder: where its artifacts lie, `RUN/VARIANT/seed-N`.
        record: variant, seed, steps (names of folders), macs, and artifacts: a list of what each
            file is and what was measured on it.
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


@dataclass(frozen=True)
class Run:
    """A run, finished or not.

    Attributes:
        directory: its folder.
        record: `run.json`: name, pipeline (the whole specification), seeds, data (a note), and
            sessions, one a start that had something to do: command, commit, versions, machine,
            seeds, begun, and ended, None where it goes on or was killed.
        deliveries: what is finished, in the order of the pipeline's variants, then of seeds.
        latency_ms: median of one image, by the artifact's path relative to `directory`.
    """

    directory: Path
    record: dict[str, Any]
    deliveries: tuple[Delivery, ...]
    latency_ms: dict[str, float]


def read_run(directory: Path) -> Run:
    """Reads the records of a run.

    Args:
        directory: the folder of a run.

    Raises:
        TfpruneError: it is none, no variant of it is finished, or a record is damaged.
    """
    found = [
        (path.parent, record)
        for path in sorted(directory.glob(f"*/seed-*/{RECORD}"))
        if "artifacts" in (record := read_json(path))
    ]
    if not found or not (directory / RUN).is_file():
        raise TfpruneError(
            f"{directory} holds no finished variant: give the directory of a run, such as "
            "saved_models/digits, or run its pipeline first"
        )
    record = read_json(directory / RUN)
    rank = {variant: place for place, variant in enumerate(record["pipeline"]["variants"])}
    found.sort(key=lambda each: (rank.get(each[1]["variant"], len(rank)), each[1]["seed"]))
    steps: dict[str, Step] = {}

    def step(name: str) -> Step:
        if name not in steps:
            folder = directory / "steps" / name
            steps[name] = Step(folder, read_json(folder / RECORD))
        return steps[name]

    return Run(
        directory,
        record,
        tuple(
            Delivery(folder, said, tuple(step(name) for name in said["steps"]))
            for folder, said in found
        ),
        {
            row["runtime"]: row["median_ms"]
            for path in sorted(directory.glob(f"latency/seed-*/{RECORD}"))
            for row in read_json(path)["latency"]
        },
    )
