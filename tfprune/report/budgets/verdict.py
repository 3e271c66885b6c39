"""Verdicts on a budget's limits: a line, a table, Markdown, JSON and JUnit XML, and the exit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args
from xml.dom import minidom

from tfprune import figures
from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import ACCURACY, Figure
from tfprune.report.text import escape_markdown

if TYPE_CHECKING:
    from junitparser import Error, Failure

Outcome = Literal["kept", "broken", "missing"]
_COLUMNS = ("rule", "variant", "artifact", "figure", "measured", "limit", "margin", "verdict")
_RIGHT = ("measured", "margin")
# What XML 1.0 cannot hold, however it is escaped.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_floor(limit: str, figure: Figure) -> bool:
    """Whether a figure must not lie below a limit; else it must not lie above it.

    Args:
        limit: such as `max_drop`, which says how much worse a figure may be.
        figure: whose limit it is.
    """
    return limit in ("min", "min_ratio") or (limit == "max_drop" and figure.better != "lower")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One limit of one rule, for one artifact of one variant.

    Figures are in the units of `comparison`'s table: shares 0 to 1, bytes, milliseconds.

    Attributes:
        rule: which rule of the budget, counted from 1.
        variant: the variant; the rule's glob where it matches none.
        artifact: the format; the rule's glob where it matches none.
        figure: a column of `comparison`, such as `bytes_gzip`.
        limit: `min`, `max`, `max_drop`, `max_rise`, `min_ratio` or `max_ratio`.
        given: the number that the rule gives for it.
        against: what a relative limit compares with: a variant's name, None for the baseline.
        outcome: whether the limit is kept, broken, or cannot be judged.
        value: the figure; with several seeds their mean, or that of the worst.
        deviation: sample deviation of a mean over several seeds.
        seeds: how many seeds the figure has.
        worst_seed: whose figure it is, where a rule asks for the worst of several.
        reference: the figure that a relative limit compares with.
        bound: what the limit comes to, in the figure's unit.
        margin: how far the figure lies inside the bound; negative where it is broken.
        source: the file of the run that the figure is read from, relative to the run.
        reason: what is missing and what to do; empty unless something is.
        by: what the run is compared by.
        device: which device tells the figure; None for a figure of the file.
    """

    rule: int
    variant: str
    artifact: str
    figure: str
    limit: str
    given: float
    against: str | None
    outcome: Outcome
    value: float | None = None
    deviation: float | None = None
    seeds: int = 0
    worst_seed: int | None = None
    reference: float | None = None
    bound: float | None = None
    margin: float | None = None
    source: str = ""
    reason: str = ""
    by: Figure = ACCURACY
    device: str | None = None

    @property
    def row(self) -> Figure:
        """The figure's row."""
        return figures.figure(self.figure, self.by)

    @property
    def title(self) -> str:
        """What people call the figure, with the device that tells it."""
        return f"{self.row.title} on {self.device}" if self.device else self.row.title

    @property
    def value_text(self) -> str:
        """The figure with its unit, deviation and number of seeds; empty where it is missing."""
        if self.value is None:
            return ""
        number, digits = self._number, self._digits()
        text = number.text(self.value, digits)
        if self.worst_seed is not None:
            return f"{text} (seed {self.worst_seed}, worst of {self.seeds})"
        if self.deviation is None:
            return text
        always = self.row.always_spread
        mean = number.mean(self.value, self.deviation, digits, always=always)
        return f"{mean} ({self.seeds} seeds)"

    @property
    def limit_text(self) -> str:
        """The limit as the rule gives it: the same text whatever was measured."""
        return self._limit(self._number.digits_of(self.given))

    @property
    def bound_text(self) -> str:
        """The limit with as many digits as the figure, and what it comes to if it is relative."""
        number, digits = self._number, self._digits()
        if self.reference is None or self.bound is None:
            given = number.digits_of(self.given)
            return self._limit(given if digits is None else max(digits, given or 0))
        return f"{self.limit_text} = {number.text(self.bound, digits)}"

    @property
    def margin_text(self) -> str:
        """The margin with its sign and unit; empty where the figure is missing."""
        if self.margin is None:
            return ""
        sign = "-" if self.margin < 0 else "+" if self.margin > 0 else ""
        return sign + self._number.difference(abs(self.margin), self._digits())

    @property
    def sentence(self) -> str:
        """The whole verdict in one line."""
        who = f"rule #{self.rule}: "
        if self.outcome == "missing":
            return who + self.reason
        line = f"{who}{self.variant} {self.artifact}: {self.title} {self.value_text}"
        if self.outcome == "kept":
            return f"{line}, {self.bound_text} is asked ({self.source})"
        gap, much = (
            self.margin_text.removeprefix("-"),
            "little" if is_floor(self.limit, self.row) else "much",
        )
        return f"{line}, but {self.bound_text} is asked: {gap} too {much} ({self.source})"

    def document(self) -> dict[str, Any]:
        """Plain values for JSON, with the sentence that a person reads."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key != "by"}
        return {
            **{"verdict" if key == "outcome" else key: value for key, value in values.items()},
            "told": self.sentence,
        }

    @property
    def _number(self) -> figures.Number:
        return self.row.exact_number

    def _limit(self, digits: int | None) -> str:
        number, least = self._number, "at least" if self.limit.startswith("min") else "at most"
        than = self.against or "the baseline"
        if self.limit in ("min", "max"):
            return f"{least} {number.text(self.given, digits)}"
        if self.limit.endswith("_ratio"):
            times = "that of" if self.given == 1 else f"{self.given:g} times"
            return f"{least} {times} {than}"
        way = "below" if is_floor(self.limit, self.row) else "above"
        return f"{least} {number.difference(self.given, digits)} {way} {than}"

    def _digits(self) -> int | None:
        if self.value is None or self.bound is None:
            return self._number.digits
        return self._number.digits_apart(self.value, self.bound)


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many limits are kept, broken and missing."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return {outcome: outcomes.count(outcome) for outcome in get_args(Outcome)}


def count_line(verdicts: Sequence[Verdict]) -> str:
    """The counts on one line: `7 limits kept, 1 broken, 0 missing`."""
    count = counts(verdicts)
    limits = "limit" if count["kept"] == 1 else "limits"
    return f"{count['kept']} {limits} kept, {count['broken']} broken, {count['missing']} missing"


def table_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """An aligned table: a line of headings, then a line a verdict."""
    rows = [list(_COLUMNS), *(_cells(verdict) for verdict in verdicts)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for title, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def missing_lines(verdicts: Iterable[Verdict]) -> list[str]:
    """What is missing and what to do, each reason once."""
    return list(
        dict.fromkeys(verdict.sentence for verdict in verdicts if verdict.outcome == "missing")
    )


def markdown_summary(
    name: str, budget: str, verdicts: Sequence[Verdict], baseline: str = ""
) -> str:
    """A summary for a pull request or a job's page.

    Example:
        >>> summary = markdown_summary("digits", "budget.toml", judge(budget, table))

    Args:
        name: of the run.
        budget: where the budget is from, such as the path of its file.
        verdicts: what `judge` returned.
        baseline: the run that rules compared with, if one was given.
    """
    count = counts(verdicts)
    worst = "broken" if count["broken"] else "missing figures" if count["missing"] else "kept"
    compared = f" Baseline: {_escaped(baseline)}." if baseline else ""
    lines = [
        f"## Budget of {_escaped(name)}: {worst}",
        "",
        f"{count_line(verdicts)}. Judged by {_escaped(budget)}.{compared}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'|'.join('--:' if title in _RIGHT else ':--' for title in _COLUMNS)}|",
    ]
    for verdict in verdicts:
        *cells, outcome = (_escaped(cell) for cell in _cells(verdict))
        shown = outcome if verdict.outcome == "kept" else f"**{outcome}**"
        lines.append(f"| {' | '.join([*cells, shown])} |")
    if missing := missing_lines(verdicts):
        lines += ["", *(f"- {_escaped(line)}" for line in missing)]
    return "\n".join(lines) + "\n"


def document(
    name: str, budget: str, verdicts: Sequence[Verdict], baseline: str | None = None
) -> dict[str, Any]:
    """Plain values for JSON, every digit kept; arguments as for `markdown_summary`."""
    return {
        "run": name,
        "budget": budget,
        "baseline": baseline,
        **counts(verdicts),
        "verdicts": [verdict.document() for verdict in verdicts],
    }


def require_kept(name: str, verdicts: Sequence[Verdict]) -> None:
    """Raises an error unless every limit is kept.

    Raises:
        TfpruneError: one is broken, whatever else is missing: that is certain already.
        UsageError: none is broken, but a figure is missing.
    """
    for word, error in (("broken", TfpruneError), ("missing", UsageError)):
        # A reason may hold for several limits; what is counted are limits, as in the last line.
        these = [verdict.sentence for verdict in verdicts if verdict.outcome == word]
        if these:
            what = "broken" if word == "broken" else "not to be judged"
            limits = "1 limit is" if len(these) == 1 else f"{len(these)} limits are"
            more = f" (and {len(these) - 1} more)" if len(these) > 1 else ""
            raise error(f"{name}: {limits} {what}: {these[0]}{more}")


def _cells(verdict: Verdict) -> list[str]:
    return [
        f"#{verdict.rule}",
        verdict.variant,
        verdict.artifact,
        verdict.title,
        verdict.value_text,
        verdict.bound_text,
        verdict.margin_text,
        verdict.outcome,
    ]


def _escaped(text: str) -> str:
    # A summary is posted to chats as well.
    return escape_markdown(text, everywhere=True)


def junit_xml(name: str, verdicts: Iterable[Verdict]) -> str:
    """One test case a verdict: broken is a failure, missing is an error.

    Example:
        >>> Path("budget.xml").write_text(junit_xml("digits", judge(budget, table)))

    A case keeps its name from run to run, whatever is measured, so that a server can show its
    history. The sentence stands there twice, as the attribute `message` and as text, because some
    servers show only one of them. Nothing in it is a time, so equal verdicts give equal bytes.

    Args:
        name: of the run.
        verdicts: what `judge` returned.

    Returns:
        The document, indented, with a newline at its end.
    """
    # Imported late: only `tfprune check` writes it.
    from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

    suite = TestSuite(_clean(f"budget of {name}"))
    for verdict in verdicts:
        case = TestCase(
            _clean(f"rule #{verdict.rule}: {verdict.title} {verdict.limit_text}"),
            _clean(f"{name}.{verdict.variant}.{verdict.artifact}"),
        )
        sentence = _clean(verdict.sentence)
        if verdict.outcome == "broken":
            case.result = [_result(Failure(sentence, "broken"), sentence)]
        elif verdict.outcome == "missing":
            case.result = [_result(Error(sentence, "missing"), sentence)]
        else:
            case.system_out = sentence
        suite.add_testcase(case)
    suites = JUnitXml("tfprune check")
    suites.add_testsuite(suite)
    suites.update_statistics()
    pretty = minidom.parseString(suites.tostring()).toprettyxml(indent="  ", encoding="utf-8")
    return pretty.decode("utf-8")


def _result(result: Failure | Error, text: str) -> Failure | Error:
    result.text = text
    return result


def _clean(text: str) -> str:
    return _NO_XML.sub("?", text)
