"""Judges the figures of a run by a budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from tfprune import figures
from tfprune.errors import did_you_mean
from tfprune.figures import ACCURACY, Figure, on_devices
from tfprune.report.budgets.budget import RELATIVE, Budget, Rule
from tfprune.report.budgets.verdict import Outcome, Verdict, is_floor
from tfprune.report.run import DEVICES, LATENCY, Run
from tfprune.report.tables import planned

# Rounding of a sum or product must not break a limit that is met exactly.
_ROUNDING = 1e-12

_Seeds = dict[int, float]


def judged_table(run: Run) -> pd.DataFrame:
    """The figures of exactly those artifacts that a run's pipeline plans.

    Example:
        >>> verdicts = judge(recorded_budget(run), judged_table(run), by=run.figure)

    An artifact that is planned and not finished has a row without figures, since a rule for all
    variants must not pass without it. What an earlier pipeline left in the folder is left out.

    Args:
        run: what `read_run` read.

    Returns:
        The table of `planned`.

    Raises:
        TfpruneError: an artifact is missing or was changed after it was measured.
    """
    table = planned(run)
    variants = list(run.record["pipeline"]["variants"])
    table = table[table["variant"].isin(variants)].reset_index(drop=True)
    for title, formats in run.devices().items():
        told = {
            (row["variant"], row["format"], row["seed"]): row["figures"]
            for row in run.on_devices
            if row["device"] == title
        }
        places = list(zip(table["variant"], table["artifact"], table["seed"], strict=True))
        for figure in on_devices():
            # What does not run there has no figure to miss; what is planned and missing has.
            values = [
                told.get(place, {}).get(figure.name, math.nan)
                if place[1] in formats or not place[1]
                else None
                for place in places
            ]
            table[_column(figure.name, title)] = pd.Series(values, dtype=object)
    return table


def _column(figure: str, device: str | None) -> str:
    """The column of `judged_table` for a figure; those of devices hold None for other formats."""
    if device is None or figure not in {each.name for each in on_devices()}:
        return figure
    return f"{device}: {figure}"


def judge(
    budget: Budget,
    table: pd.DataFrame,
    baseline: pd.DataFrame | None = None,
    by: Figure = ACCURACY,
) -> list[Verdict]:
    """Judges every artifact that a rule names by every limit of the rule.

    Example:
        >>> budget = load_budget("budget.toml")
        >>> for verdict in judge(budget, judged_table(run), by=run.figure):
        ...     print(verdict.sentence)

    A figure that equals its limit keeps it. With several seeds a rule judges their mean, or each
    of them: then a relative limit compares a seed with the same seed of the reference.

    Args:
        budget: the rules.
        table: what `judged_table` or `comparison` returned, of one run.
        baseline: likewise, of the run that rules without `against` compare with.
        by: what both runs are compared by, such as `Run.figure`.

    Returns:
        One verdict a rule, variant, artifact and limit, in this order.

    Raises:
        UsageError: a rule limits a figure that such a run does not have.
    """
    here = _Figures(table)
    before = None if baseline is None else _Figures(baseline)
    return [
        _judged(case, here, before)
        for number, rule in enumerate(budget.of(by).rules, start=1)
        for case in _cases(number, rule, here)
    ]


class _MissingError(Exception):
    """A figure is missing; the message says which one, and what to do."""


class _Figures:
    """A table's figures by variant, artifact and seed."""

    def __init__(self, table: pd.DataFrame) -> None:
        mark = _column(on_devices()[0].name, "")
        self.devices = [str(name).removesuffix(mark) for name in table if str(name).endswith(mark)]
        self._rows: dict[str, dict[str, dict[int, dict[Any, Any]]]] = {}
        for row in table.to_dict("records"):
            artifacts = self._rows.setdefault(row["variant"], {})
            artifacts.setdefault(row["artifact"], {})[int(row["seed"])] = row

    def planned(self) -> dict[str, list[str]]:
        """The artifacts of each variant, finished or missing."""
        return {variant: list(artifacts) for variant, artifacts in self._rows.items()}

    def runs_on(self, variant: str, artifact: str, column: str) -> bool:
        """Whether an artifact is in a format that the device of a column runs."""
        rows = self._rows.get(variant, {}).get(artifact, {}).values()
        return any(row.get(column, math.nan) is not None for row in rows)

    def of(self, variant: str, artifact: str, figure: str) -> _Seeds:
        """A figure by seed, in the order of seeds; NaN where it is missing."""
        rows = self._rows.get(variant, {}).get(artifact, {})
        values = {seed: rows[seed].get(figure) for seed in sorted(rows)}
        return {seed: math.nan if one is None else float(one) for seed, one in values.items()}


@dataclass(frozen=True)
class _Case:
    """One limit of a rule for one artifact, not judged yet."""

    number: int
    rule: Rule
    variant: str
    artifact: str
    figure: str
    limit: str
    given: float
    # Why there is nothing to judge, if that is known beforehand.
    reason: str = ""

    @property
    def row(self) -> Figure:
        return figures.figure(self.figure, self.rule.compared_by)

    @property
    def device(self) -> str | None:
        """The device that tells the figure; None for a figure of the file."""
        return self.rule.device if self.column != self.figure else None

    @property
    def column(self) -> str:
        """The column of `judged_table` that is judged."""
        return _column(self.figure, self.rule.device)

    def verdict(self, outcome: Outcome, **known: Any) -> Verdict:
        return Verdict(
            rule=self.number,
            variant=self.variant,
            artifact=self.artifact,
            figure=self.figure,
            limit=self.limit,
            given=self.given,
            against=self.rule.against if self.limit in RELATIVE else None,
            outcome=outcome,
            device=self.device,
            by=self.rule.compared_by,
            **known,
        )


def _cases(number: int, rule: Rule, here: _Figures) -> Iterator[_Case]:
    targets = list(_targets(rule, here.planned()))
    alone = {variant for variant, _, _ in targets} == {rule.against}
    for variant, artifact, reason in targets:
        for figure, limit, given in rule.limits():
            why = reason
            # A variant is not compared with itself: it could only pass, or fail for nothing.
            if limit in RELATIVE and variant == rule.against:
                if not alone:
                    continue
                why = _alone(rule)
            case = _Case(number, rule, variant, artifact, figure, limit, given, why)
            if case.device is not None and not why:
                if case.device not in here.devices:
                    case = replace(case, reason=_no_device(case.device, here.devices))
                elif not here.runs_on(variant, artifact, case.column):
                    # A glob of formats is for those that the device runs.
                    if any(here.runs_on(*target[:2], case.column) for target in targets):
                        continue
                    said = f"{case.device} does not run {artifact}: name another artifact"
                    case = replace(case, reason=said)
            yield case


def _targets(rule: Rule, planned: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, str]]:
    """Variants and artifacts that a rule names; with a reason where none has that name.

    A glob of variants is for those that are delivered in a format the rule names: another variant
    is left out, as long as there is one to judge.
    """
    variants = [variant for variant in planned if fnmatchcase(variant, rule.variant)]
    if not variants:
        hint = did_you_mean(rule.variant, planned)
        reason = f"no variant of the run is called {rule.variant!r}: {hint}"
        yield rule.variant, rule.artifact, reason
    matches = {
        variant: [form for form in planned[variant] if form and fnmatchcase(form, rule.artifact)]
        for variant in variants
    }
    some = any(matches.values())
    for variant, artifacts in matches.items():
        for artifact in artifacts:
            yield variant, artifact, ""
        if "" in planned[variant]:
            reason = f"{variant} is missing: run the pipeline to its end"
            yield variant, rule.artifact, reason
        elif not artifacts and not some:
            hint = did_you_mean(rule.artifact, planned[variant])
            yield variant, rule.artifact, f"{variant} has no artifact {rule.artifact!r}: {hint}"


def mistakes(
    budget: Budget, planned: Mapping[str, Sequence[str]], devices: Sequence[str] = ()
) -> Iterator[str]:
    """The mistakes of a budget that can be seen before anything is run: names that match nothing.

    Args:
        budget: the rules.
        planned: the formats that each variant is delivered in.
        devices: the names or labels of the pipeline's devices.

    Returns:
        One line a mistake.
    """
    for number, rule in enumerate(budget.rules, start=1):
        targets = list(_targets(rule, planned))
        reasons = [reason for *_, reason in targets if reason]
        if rule.device is not None and rule.device not in devices:
            reasons.append(_no_device(rule.device, devices))
        if rule.against is not None and rule.against not in planned:
            reasons.append(_no_reference(rule.against, planned))
        elif rule.against is not None and not reasons:
            others = [(variant, form) for variant, form, _ in targets if variant != rule.against]
            if not others:
                reasons.append(_alone(rule))
            reasons += [
                _not_exported(rule.against, form)
                for _, form in others
                if form not in planned[rule.against]
            ]
        yield from (f"rule #{number}: {reason}" for reason in dict.fromkeys(reasons))


def _no_reference(against: str, variants: Iterable[str]) -> str:
    return f"against = {against!r} is not a variant of the run: {did_you_mean(against, variants)}"


def _no_device(device: str, devices: Sequence[str]) -> str:
    if not devices:
        return f"device = {device!r}, and the pipeline has no [[devices]]: add it there"
    return f"device = {device!r} is not a device of the run: {did_you_mean(device, devices)}"


def _not_exported(against: str, artifact: str) -> str:
    return (
        f"{against} has no {artifact} to compare with: export it there too, "
        "or compare with a variant that has it"
    )


def _alone(rule: Rule) -> str:
    return (
        f"{rule.variant!r} matches only {rule.against!r}, which it is compared with: "
        "name another variant"
    )


def _judged(case: _Case, here: _Figures, before: _Figures | None) -> Verdict:
    try:
        if case.reason:
            raise _MissingError(case.reason)
        values = here.of(case.variant, case.artifact, case.column)
        _require_all(case, values, case.variant, _advice(case))
        others = _reference(case, here, before) if case.limit in RELATIVE else None
        pairs = _pairs(case, values, others)
        _require_ratios(case, pairs)
    except _MissingError as missing:
        return case.verdict("missing", reason=str(missing))
    # The pair with the least margin is the one that is judged; a mean is a single pair.
    margin, bound, value, reference, seed = min(
        (*_margin(case, value, reference), value, reference, seed)
        for seed, (value, reference) in pairs.items()
    )
    worst = case.rule.seeds == "worst" and len(values) > 1
    spread = statistics.stdev(values.values()) if len(values) > 1 and not worst else None
    return case.verdict(
        "kept" if margin >= 0 else "broken",
        value=value,
        deviation=spread,
        seeds=len(values),
        worst_seed=seed if worst else None,
        reference=None if others is None else reference,
        bound=bound,
        margin=margin,
        source=_source(case, [seed] if worst else list(values)),
    )


def _advice(case: _Case) -> str:
    if case.device is None:
        return "run the pipeline to its end"
    return f"see what devices.csv says of {case.device}, or run the pipeline to its end"


def _require_all(case: _Case, values: _Seeds, owner: str, advice: str) -> None:
    lacking = [str(seed) for seed, value in values.items() if not math.isfinite(value)]
    if lacking:
        raise _MissingError(
            f"{case.row.title} of {owner} {case.artifact} is missing for seed "
            f"{', '.join(lacking)}: {advice}"
        )


def _reference(case: _Case, here: _Figures, before: _Figures | None) -> _Seeds:
    """What a relative limit compares with, by seed."""
    against, artifact = case.rule.against, case.artifact
    if against is not None:
        if against not in here.planned():
            raise _MissingError(_no_reference(against, here.planned()))
        values = here.of(against, artifact, case.column)
        if not values:
            raise _MissingError(_not_exported(against, artifact))
        _require_all(case, values, against, _advice(case))
        return values
    if before is None:
        raise _MissingError(
            f"{case.row.title} of {case.variant} {artifact} has nothing to be "
            'compared with: give a baseline, or say against = "VARIANT" in the rule'
        )
    values = before.of(case.variant, artifact, case.column)
    if not values:
        raise _MissingError(
            f"the baseline has no {artifact} of {case.variant}: give one that has it, "
            'or say against = "VARIANT" in the rule'
        )
    _require_all(case, values, f"the baseline's {case.variant}", "give a baseline that has it")
    return values


def _pairs(case: _Case, values: _Seeds, others: _Seeds | None) -> dict[int, tuple[float, float]]:
    """Figures and what they are compared with: a pair a seed, or one of means."""
    if case.rule.seeds == "mean":
        mean = statistics.fmean(others.values()) if others else 0.0
        return {min(values): (statistics.fmean(values.values()), mean)}
    if others is None:
        return {seed: (value, 0.0) for seed, value in values.items()}
    lacking = [str(seed) for seed in values if seed not in others]
    if lacking:
        whose = case.rule.against or "the baseline"
        raise _MissingError(
            f"{whose} has no seed {', '.join(lacking)} to compare {case.variant} {case.artifact} "
            'with: run it with the same seeds, or say seeds = "mean" in the rule'
        )
    return {seed: (value, others[seed]) for seed, value in values.items()}


def _require_ratios(case: _Case, pairs: Mapping[int, tuple[float, float]]) -> None:
    if case.limit.endswith("_ratio") and any(reference < 0 for _, reference in pairs.values()):
        raise _MissingError(
            f"the {case.row.title} that {case.variant} {case.artifact} is compared with is "
            "negative, so a ratio says nothing: limit it by max_drop"
        )


def _margin(case: _Case, value: float, reference: float) -> tuple[float, float]:
    """The margin, negative where the limit is broken, and what the limit comes to."""
    limit, given = case.limit, case.given
    floor = is_floor(limit, case.row)
    bound = {
        "min": given,
        "max": given,
        "max_drop": reference - given if floor else reference + given,
        "max_rise": reference + given,
        "min_ratio": reference * given,
        "max_ratio": reference * given,
    }[limit]
    margin = value - bound if floor else bound - value
    equal = abs(margin) <= _ROUNDING * (abs(bound) + abs(reference))
    return (0.0 if equal else margin), bound


def _source(case: _Case, seeds: list[int]) -> str:
    """The record that a figure is read from; a glob where it is a mean of several."""
    folder = case.variant
    if case.device is not None:
        folder = f"{DEVICES}/{case.device}"
    elif case.row.source == "latency":
        folder = LATENCY
    return f"{folder}/seed-{seeds[0] if len(seeds) == 1 else '*'}/record.json"
