"""What a run may cost and must reach: the rules of a budget file or of a pipeline's `[budget]`.

Which figures a rule can limit depends on what the run is compared by: `Budget.of` checks it. A
pipeline may be read before that is known, so `Budget` itself takes any name of a figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from tfprune.errors import UsageError
from tfprune.figures import ACCURACY, Direction, Figure, judged, on_devices
from tfprune.report.run import RUN, Run
from tfprune.validation import describe_error, read_size, read_toml

# Limits that are distances from a reference.
RELATIVE = ("max_drop", "max_rise", "min_ratio", "max_ratio")


# Strict: `true` and "5" are mistakes here, not numbers.
_Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Any = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[_Number, Field(le=1)]
Size = Annotated[_Number, BeforeValidator(read_size, json_schema_input_type=float | str)]
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


_BOUNDS = {
    "min": "the least it may be.",
    "max": "the most it may be.",
    "max_drop": "how much worse than the reference it may be, absolute: 0.01 of a share is one "
    "point.",
    "min_ratio": "the least it may be, divided by the reference.",
    "max_rise": "how far it may lie above the reference, absolute.",
    "max_ratio": "the most it may be, divided by the reference.",
}
_KINDS: dict[str, tuple[Any, str, str]] = {
    "Shares": (Share, "a share, 0 to 1,", ""),
    "Sizes": (Size, "a size", ", in bytes or as text: `30 KiB`, `1.5 MB`"),
    "Amounts": (_Number, "an amount", ", in the figure's own unit"),
    # Of a task: R² and many a loss may be negative.
    "Numbers": (_Any, "a number", ", in the figure's own unit"),
}


def _type_of(limit: str, number: Any) -> Any:
    """The type of a limit: a ratio is a plain number, and no distance is negative."""
    return _Number if limit.endswith("_ratio") or (number is _Any and limit in RELATIVE) else number


@cache
def _limits(kind: str, better: Direction, compared: bool) -> type[_Limits]:
    """The table of limits for figures of a kind and a direction.

    What a run is compared by has a `max_drop` in both directions.
    """
    number, what, unit = _KINDS[kind]
    way = ("max_drop", "min_ratio") if better == "higher" else ("max_rise", "max_ratio")
    names = tuple(dict.fromkeys(("min", "max", *(("max_drop",) if compared else ()), *way)))
    usual = (kind == "Shares") == (better == "higher")
    fields: dict[str, Any] = {name: (_type_of(name, number) | None, None) for name in names}
    return create_model(
        ("Compared" if compared and better == "lower" else "")
        + (kind if usual else f"{better.capitalize()}{kind}"),
        __base__=_Limits,
        __module__=__name__,
        __doc__=_attributes(
            f"Limits of {what} that is better when {better}{unit}.",
            {name: _BOUNDS[name] for name in names},
        ),
        **fields,
    )


def _limits_of(figure: Figure, by: Figure) -> type[_Limits]:
    unit, compared = figure.number.unit, figure.name == by.name
    kind = "Sizes" if unit.endswith("iB") else "Numbers" if compared else "Amounts"
    return _limits("Shares" if figure.is_share else kind, figure.better or "lower", compared)


class AnyLimits(_Limits):
    """Limits of the figure of a task, which may not be known yet.

    Attributes:
        min: the least it may be.
        max: the most it may be.
        max_drop: how much worse than the reference it may be, absolute: 0.01 of a share is one
            point.
        max_rise: how far it may lie above the reference, absolute.
        min_ratio: the least it may be, divided by the reference.
        max_ratio: the most it may be, divided by the reference.
    """

    min: _Any | None = None
    max: _Any | None = None
    max_drop: _Number | None = None
    max_rise: _Number | None = None
    min_ratio: _Number | None = None
    max_ratio: _Number | None = None


def _attributes(title: str, meanings: Mapping[str, str]) -> str:
    lines = [f"    {name}: {meaning}" for name, meaning in meanings.items()]
    return "\n".join([title, "", "Attributes:", *lines])


class _Rule(_Table):
    compared_by: ClassVar[Figure] = ACCURACY

    variant: Glob = "*"
    artifact: Glob = "*"
    against: Name | None = None
    device: Name | None = None
    seeds: Literal["mean", "worst"] = "mean"

    def limits(self) -> Iterator[tuple[str, str, float]]:
        """Figure, limit and value of every limit, in the order of the figures."""
        rows = (*judged(self.compared_by), *on_devices())
        tables = {row.name: getattr(self, row.name, None) for row in rows}
        for name, table in {**tables, **(self.model_extra or {})}.items():
            if table is not None:
                yield from ((name, limit, value) for limit, value in table.given())

    @model_validator(mode="after")
    def _judges_something(self) -> _Rule:
        names = [name for _, name, _ in self.limits()]
        if not names:
            known = ", ".join(figure.name for figure in judged(self.compared_by))
            raise ValueError(f"sets no limit: give one of {known}")
        told = {figure.name for figure in on_devices()}
        limited = [name for name, _, _ in self.limits() if name in told]
        if limited and self.device is None:
            raise ValueError(f"limits {limited[0]}, which a device tells: say device = NAME")
        if self.device is not None and not limited:
            raise ValueError(
                f"device = {self.device!r}, but nothing that a device tells is limited: give one "
                f"of {', '.join(figure.name for figure in on_devices())}"
            )
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


class _OpenRule(_Rule):
    """Takes the limits of any figure: `Budget.of` checks that it is the run's."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AnyLimits] = Field(init=False)


def _rule(base: type[_Rule], by: Figure, limits: Mapping[str, type[_Limits]]) -> type[_Rule]:
    """A rule with a field for each figure that a budget can limit."""
    fields: dict[str, Any] = {name: (table | None, None) for name, table in limits.items()}
    made = create_model(
        "Rule",
        __base__=base,
        __module__=__name__,
        __doc__=_attributes(
            "Limits for the artifacts of variants.",
            {
                "variant": "a variant's name, or a glob such as `weights-*`.",
                "artifact": "a format, or a glob such as `tflite*`.",
                "against": "what relative limits (`max_drop`, `max_rise`, `min_ratio`, "
                "`max_ratio`) compare\n        with: the same artifact of this variant of the "
                "same run. If not given, the same\n        artifact of the same variant of the "
                "baseline.",
                "device": "the name or label of a device of the pipeline, which tells the figures "
                "from\n        `device_ms` on.",
                "seeds": "whether the mean over seeds is judged, or each seed, of which the worst "
                "counts.",
                **{figure.name: f"{figure.meaning}." for figure in (*judged(by), *on_devices())},
            },
        ),
        **fields,
    )
    made.compared_by = by
    return made


if TYPE_CHECKING:
    Rule = _Rule
else:
    # The loss may be what a run is compared by, and then it has other limits.
    Rule = _rule(
        _OpenRule,
        ACCURACY,
        {row.name: _limits_of(row, ACCURACY) for row in (*judged(), *on_devices())}
        | {"loss": AnyLimits},
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

    def of(self, by: Figure) -> Budget:
        """The same budget, whose figures are those of a run.

        Example:
            >>> budget.of(run.figure)

        Args:
            by: what the run is compared by.

        Raises:
            UsageError: a rule limits a figure that such a run does not have, or in a way that does
                not fit the figure; the message names the key.
        """
        kind = _budget_of(by)
        if type(self) is kind:
            return self
        try:
            return kind.model_validate(self.model_dump(exclude_none=True))
        except ValidationError as error:
            raise UsageError(describe_error(error, kind)) from error


@cache
def _budget_of(by: Figure) -> type[Budget]:
    """The budgets of runs that are compared by a figure."""
    rows = (*judged(by), *on_devices())
    rule = _rule(_Rule, by, {row.name: _limits_of(row, by) for row in rows})
    rules: Any = tuple[rule, ...]  # type: ignore[valid-type]
    return create_model("Budget", __base__=Budget, __module__=__name__, rules=(rules, ...))


def load_budget(path: str | Path, by: Figure = ACCURACY) -> Budget:
    """Reads and checks a budget file.

    Example:
        >>> budget = load_budget("budget.toml")
        >>> verdicts = judge(budget, judged_table(read_run("saved_models/digits")))

    Args:
        path: a TOML file of `[[rules]]`, or a pipeline file, whose `[budget]` is read.
        by: what the runs are compared by that it judges, such as `Run.figure`.

    Raises:
        TfpruneError: the file cannot be read.
        UsageError: it is not TOML, or holds what a budget cannot hold; the message names the file,
            the key and what is allowed.
    """
    path = Path(path)
    raw = read_toml(path)
    if "budget" in raw and "rules" not in raw:
        return _checked(raw["budget"], path, "budget", by)
    return _checked(raw, path, "", by)


def recorded_budget(run: Run) -> Budget | None:
    """The budget that the pipeline of a run had; None where it had none.

    Raises:
        UsageError: this version does not understand it, or it limits a figure that the run is not
            compared by.
    """
    raw = run.record["pipeline"].get("budget")
    if raw is None:
        return None
    return _checked(raw, run.directory / RUN, "pipeline.budget", run.figure)


def _checked(raw: Any, path: Path, within: str, by: Figure) -> Budget:
    kind = _budget_of(by)
    try:
        # A run's record has all limits, those that are not set as null.
        return kind.model_validate(_without_none(raw))
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_error(error, kind, within)}") from error


def _without_none(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _without_none(value) for key, value in raw.items() if value is not None}
    if isinstance(raw, list):
        return [_without_none(value) for value in raw]
    return raw
