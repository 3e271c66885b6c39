"""What a run may cost and must reach: rules, as a file or as a pipeline's `[budget]` says them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tfprune.errors import UsageError, did_you_mean
from tfprune.report.run import RUN, Run
from tfprune.validation import describe_error, read_toml

# Limits that say how far from a reference, not where.
RELATIVE = ("max_drop", "max_rise", "min_ratio", "max_ratio")
_UNITS = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}


def _bytes(said: Any) -> Any:
    """A size in bytes, from a number or from text such as `30 KiB`."""
    if not isinstance(said, str):
        return said
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", said)
    if not parts:
        raise ValueError(f'{said!r} is no size: give bytes, or text such as "30 KiB" or "1.5 MB"')
    number, unit = parts.groups()
    if unit not in _UNITS:
        # Whoever errs in a unit errs in its case.
        near = {each.lower(): each for each in _UNITS}.get(unit.lower(), unit)
        raise ValueError(f"{said!r} has the unknown unit {unit!r}: {did_you_mean(near, _UNITS)}")
    return float(number) * _UNITS[unit]


# Strict: `true` and "5" are mistakes here, not numbers.
_Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[_Number, Field(le=1)]
Size = Annotated[_Number, BeforeValidator(_bytes, json_schema_input_type=float | str)]
# Names hold these characters only (see the pipeline), and globs a few more.
Glob = Annotated[str, Field(pattern=r"^[A-Za-z0-9._*?!\[\]-]+$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Limits(_Table):
    """What one figure must keep; a figure that equals its limit keeps it."""

    def given(self) -> Iterator[tuple[str, float]]:
        """Names and values of the limits that are set."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None:
                yield name, value

    @model_validator(mode="after")
    def _sensible(self) -> _Limits:
        limits = dict(self.given())
        if not limits:
            raise ValueError(f"sets no limit: give one of {', '.join(type(self).model_fields)}")
        least, most = limits.get("min"), limits.get("max")
        if least is not None and most is not None and least > most:
            raise ValueError(f"min={least:g} is above max={most:g}, which nothing can keep")
        return self


class Shares(_Limits):
    """Limits of a share, 0 to 1, that is better when higher.

    Attributes:
        min: the least it may be.
        max: the most it may be.
        max_drop: how far it may lie below the reference, absolute: 0.01 is one point.
        min_ratio: the least it may be, divided by the reference.
    """

    min: Share | None = None
    max: Share | None = None
    max_drop: Share | None = None
    min_ratio: _Number | None = None


class Amounts(_Limits):
    """Limits of an amount that is better when lower, in the figure's own unit.

    Attributes:
        min: the least it may be.
        max: the most it may be.
        max_rise: how far it may lie above the reference, absolute.
        max_ratio: the most it may be, divided by the reference.
    """

    min: _Number | None = None
    max: _Number | None = None
    max_rise: _Number | None = None
    max_ratio: _Number | None = None


class Sizes(_Limits):
    """Limits like those of `Amounts`, in bytes or as text: `30 KiB`, `1.5 MB`."""

    min: Size | None = None
    max: Size | None = None
    max_rise: Size | None = None
    max_ratio: _Number | None = None


class Rule(_Table):
    """Limits for the artifacts of variants.

    Attributes:
        variant: a variant's name, or a glob such as `weights-*`.
        artifact: a format, or a glob such as `tflite*`.
        against: what relative limits (`max_drop`, `max_rise`, `min_ratio`, `max_ratio`) compare
            with: the same artifact of this variant of the same run. If not given, the same
            artifact of the same variant of the baseline.
        seeds: whether the mean over seeds is judged, or each seed, the worst of them told.
        accuracy: of the artifact on the test set.
        loss: likewise, in nats.
        parameters: of the artifact.
        nonzero: parameters that are not zero.
        sparsity: share of zeros among the parameters.
        macs: multiply-accumulates of one example.
        bytes: the artifact's size.
        bytes_gzip: its size compressed.
        latency_ms: median time of one image, in milliseconds.
    """

    variant: Glob = "*"
    artifact: Glob = "*"
    against: Name | None = None
    seeds: Literal["mean", "worst"] = "mean"
    accuracy: Shares | None = None
    loss: Amounts | None = None
    parameters: Amounts | None = None
    nonzero: Amounts | None = None
    sparsity: Shares | None = None
    macs: Amounts | None = None
    bytes: Sizes | None = None
    bytes_gzip: Sizes | None = None
    latency_ms: Amounts | None = None

    def limits(self) -> Iterator[tuple[str, str, float]]:
        """Figure, limit and value of every limit, in the order of the figures."""
        for figure in FIGURES:
            table = getattr(self, figure)
            if table is not None:
                yield from ((figure, name, value) for name, value in table.given())

    @model_validator(mode="after")
    def _judges_something(self) -> Rule:
        names = [name for _, name, _ in self.limits()]
        if not names:
            raise ValueError(f"sets no limit: give one of {', '.join(FIGURES)}")
        if self.against is None:
            return self
        if not set(names) & set(RELATIVE):
            raise ValueError(
                f"against = {self.against!r}, but nothing is compared: "
                f"give one of {', '.join(RELATIVE)}"
            )
        if self.against == self.variant:
            raise ValueError(f"compares {self.against!r} with itself: name another variant")
        return self


FIGURES: tuple[str, ...] = tuple(
    name for name in Rule.model_fields if name not in ("variant", "artifact", "against", "seeds")
)


class Budget(_Table):
    """What a run is judged by."""

    rules: tuple[Rule, ...]

    @model_validator(mode="after")
    def _some(self) -> Budget:
        # Not min_length, which counts a rule with a mistake as none and reports both.
        if not self.rules:
            raise ValueError("rules is empty: add one")
        return self


def load_budget(path: str | Path) -> Budget:
    """Reads and checks a budget file.

    Args:
        path: a TOML file of `[[rules]]`, or a pipeline file, whose `[budget]` is read.

    Raises:
        TfpruneError: the file cannot be read.
        UsageError: it is no TOML, or says something a budget cannot; the message names the file,
            the key and what is allowed.
    """
    path = Path(path)
    raw = read_toml(path)
    if "budget" in raw and "rules" not in raw:
        return _checked(raw["budget"], path, "budget")
    return _checked(raw, path, "")


def recorded_budget(run: Run) -> Budget | None:
    """The budget that the pipeline of a run had; None where it had none.

    Raises:
        UsageError: this version does not understand it.
    """
    raw = run.record["pipeline"].get("budget")
    return None if raw is None else _checked(raw, run.directory / RUN, "pipeline.budget")


def _checked(raw: Any, path: Path, within: str) -> Budget:
    try:
        return Budget.model_validate(raw)
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_error(error, Budget, within)}") from error
