"""The records of a run, checked where they are read.

A record that lacks what other modules rely on gives one line with its file, whichever command reads
it first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfprune.errors import TfpruneError
from tfprune.figures import check_name, compared, from_record
from tfprune.files import read_json
from tfprune.validation import describe_error

# A figure that was not measured is null; one that is not a number is NaN.
Value = float | None
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]

VALIDATION = "validation_"
"""In the record of a step that removes, before the name of the figure: its values around that."""


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
    loss: Value
    parameters: Amount | None
    nonzero_parameters: Amount | None
    test_seconds: Amount | None
    test_examples: Count | None = None
    # What records of older versions call it.
    test_images: Count | None = None


class FigureRecord(Record):
    """What a task is compared by: see `tfprune.figures.to_record`."""

    name: str
    title: str = ""
    unit: str = ""
    digits: Annotated[int | None, Field(ge=0, le=12)] = None
    better: Literal["higher", "lower"]
    meaning: str = ""
    proportion: bool = False
    loss_unit: str = ""

    @model_validator(mode="after")
    def _is_a_figure(self) -> FigureRecord:
        check_name(self.name)
        return self


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float | None)


class DeliveryRecord(Record):
    """A variant of one seed, exported and measured."""

    variant: str
    seed: Count
    steps: list[str]
    macs: Amount | None
    artifacts: Annotated[list[ArtifactRecord], Field(min_length=1)]
    # Absent in records of older versions, and where it is the accuracy.
    task: FigureRecord | None = None

    @model_validator(mode="after")
    def _figures_are_numbers(self) -> DeliveryRecord:
        by = from_record(None if self.task is None else self.task.model_dump())
        keys = {row.record_key for row in compared(by) if row.source in ("artifact", "file")}
        for number, artifact in enumerate(self.artifacts, start=1):
            values = {**dict(artifact), **(artifact.model_extra or {})}
            if by.record_key not in values:
                raise ValueError(f"artifacts#{number}.{by.record_key} is missing")
            for key in sorted(keys & set(values)):
                if not _is_number(values[key]):
                    raise ValueError(f"artifacts#{number}.{key} = {values[key]!r} is not a number")
            value = values[by.record_key]
            if by.is_share and value is not None and (value < 0 or value > 1):
                raise ValueError(
                    f"artifacts#{number}.{by.record_key} = {value!r} is not a share of 0 to 1"
                )
        return self


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
    # The epoch whose weights the step left; absent where that is the last one.
    best_epoch: Count | None = None
    removed: dict[str, Count] | None = None
    validation_accuracy: dict[str, Share | None] | None = None

    @model_validator(mode="after")
    def _epochs_are_whole(self) -> StepRecord:
        lengths = {name: len(values) for name, values in (self.history or {}).items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"history has columns of different lengths, {lengths}")
        return self

    @model_validator(mode="after")
    def _best_epoch_was_trained(self) -> StepRecord:
        epochs = (self.history or {}).get("epoch", [])
        if self.best_epoch is not None and self.best_epoch not in epochs:
            raise ValueError(f"best_epoch = {self.best_epoch} is not in the history")
        return self

    @model_validator(mode="after")
    def _validations_are_numbers(self) -> StepRecord:
        """What other figures than the accuracy were before and after a removal."""
        for key, values in (self.model_extra or {}).items():
            if not key.startswith(VALIDATION) or values is None:
                continue
            if not isinstance(values, dict) or not all(map(_is_number, values.values())):
                raise ValueError(f"{key} = {values!r} does not map names to numbers")
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


class MeasuredOnDevice(Record):
    """What a device told of one artifact."""

    variant: str
    format: str
    artifact: str
    sha256: str
    device: str
    estimated: bool
    refusal: str
    notes: list[str] = []
    settings: dict[str, str] = {}
    figures: dict[str, Amount]


class DeviceMeasurements(Record):
    """What a device told of the artifacts of a seed."""

    seed: Count
    measured: list[MeasuredOnDevice]
    missing: str = ""


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
        # Records are not written by hand, so a hint to add a key does not help.
        reason = describe_error(error, kind).replace(": add it", "")
        raise TfpruneError(f"{path} is damaged ({reason}): delete it and run again") from error
    except RecursionError as error:
        raise TfpruneError(f"{path} is damaged (too deep): delete it and run again") from error
    return dict(document)
