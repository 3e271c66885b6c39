"""The records of a run, checked where they are read.

A record that lacks what other modules rely on gives one line with its file, whichever command reads
it first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfprune.errors import TfpruneError
from tfprune.figures import compared
from tfprune.files import read_json
from tfprune.validation import describe_error

# A figure that was not measured is null; one that is not a number is NaN.
Value = float | None
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A JSON document of a run: other keys than those that are read here are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)


class Identified(Record):
    """A finished task, of whatever kind."""

    identity: Annotated[str, Field(min_length=1)]


class Finished(Record):
    """A delivery or a timing, as a forecast reads it."""

    seconds: Amount


class ArtifactRecord(Record):
    """One measured artifact of a delivery."""

    format: str
    path: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    sha256: str
    bytes_raw: Amount
    bytes_gzip: Amount
    accuracy: Share | None
    loss: Value
    parameters: Amount | None
    nonzero_parameters: Amount | None
    test_seconds: Amount | None
    test_images: Count | None = None

    @model_validator(mode="after")
    def _figures_are_numbers(self) -> ArtifactRecord:
        for figure in compared():
            if figure.source in ("artifact", "file"):
                value = (self.model_extra or {}).get(figure.record_key)
                if isinstance(value, bool) or not isinstance(value, int | float | None):
                    raise ValueError(f"{figure.record_key} = {value!r} is not a number")
        return self


class DeliveryRecord(Record):
    """A variant of one seed, exported and measured."""

    variant: str
    seed: Count
    steps: list[str]
    macs: Amount | None
    artifacts: Annotated[list[ArtifactRecord], Field(min_length=1)]


class StepRecord(Record):
    """One finished step."""

    step: str
    specification: dict[str, Any] = {}
    # The keys that differ from their defaults; records of older versions do not have it.
    set: list[str] | None = None
    seconds: Amount = 0.0
    epochs: Count = 0
    seconds_per_epoch: Amount = 0.0
    history: dict[str, list[Value]] | None = None
    removed: dict[str, Count] | None = None
    validation_accuracy: dict[str, Share | None] | None = None

    @model_validator(mode="after")
    def _epochs_are_whole(self) -> StepRecord:
        lengths = {name: len(values) for name, values in (self.history or {}).items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"history has columns of different lengths, {lengths}")
        return self


class FinishedStep(StepRecord):
    """A step, as a forecast reads it."""

    seconds: Amount
    parameters: Count


class Timed(Record):
    """The latency of one artifact."""

    runtime: str
    median_ms: Amount


class LatencyRecord(Record):
    """The latency of all artifacts of a seed."""

    latency: list[Timed]


class _Model(Record):
    name: str = ""
    options: dict[str, Any] = {}


class _Pipeline(Record):
    variants: dict[str, list[str]]
    steps: dict[str, dict[str, Any]] = {}
    formats: list[str] = []
    seeds: list[Count] = []
    data: dict[str, Any] = {}
    model: _Model = _Model()


class _Session(Record):
    command: str | None = None
    commit: str | None = None
    versions: dict[str, Any] | None = None
    machine: dict[str, Any] | None = None
    seeds: list[Count] | None = None
    begun: str | None = None
    ended: str | None = None


class RunRecord(Record):
    """`run.json`: what was run, and when."""

    name: str | None = None
    pipeline: _Pipeline
    seeds: list[Count]
    data: str = ""
    sessions: list[_Session]


class ResumableRun(RunRecord):
    """A run that can be resumed: it names the data that its results were made with."""

    data_sha256: str


def read_record(path: Path, kind: type[Record]) -> dict[str, Any]:
    """Reads a record and checks what other modules rely on.

    Args:
        path: a JSON file of a run.
        kind: what it must be.

    Returns:
        The document as it is, keys that are not checked included.

    Raises:
        TfpruneError: it is missing or damaged; the line names the file and what is wrong in it.
    """
    if not path.exists() and not path.is_symlink():
        raise TfpruneError(f"{path} is missing: run the pipeline again, which makes it anew")
    document = read_json(path)
    try:
        kind.model_validate(document)
    except ValidationError as error:
        # Nobody adds a key to a record by hand.
        reason = describe_error(error, kind).replace(": add it", "")
        raise TfpruneError(f"{path} is damaged ({reason}): delete it and run again") from error
    except RecursionError as error:
        raise TfpruneError(f"{path} is damaged (too deep): delete it and run again") from error
    return dict(document)
