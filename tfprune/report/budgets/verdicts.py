"""All verdicts of a run together: a table, a Markdown summary, a JSON document, an exit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfprune.errors import TfpruneError, UsageError
from tfprune.report import escaping
from tfprune.report.budgets.verdict import Verdict

_COLUMNS = ("rule", "variant", "artifact", "figure", "measured", "limit", "margin", "verdict")
_RIGHT = ("measured", "margin")


def counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many limits are kept, broken and missing."""
    said = [each.verdict for each in verdicts]
    return {word: said.count(word) for word in ("kept", "broken", "missing")}


def count_line(verdicts: Sequence[Verdict]) -> str:
    """How many, in words: `7 limits kept, 1 broken, 0 missing`."""
    count = counted(verdicts)
    limits = "limit" if count["kept"] == 1 else "limits"
    return f"{count['kept']} {limits} kept, {count['broken']} broken, {count['missing']} missing"


def table_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """An aligned table: a line of headings, then a line a verdict."""
    rows = [list(_COLUMNS), *(_cells(each) for each in verdicts)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for title, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def missing_lines(verdicts: Iterable[Verdict]) -> list[str]:
    """What is missing and what to do, each once."""
    return list(dict.fromkeys(each.told for each in verdicts if each.verdict == "missing"))


def markdown(name: str, budget: str, verdicts: Sequence[Verdict], baseline: str = "") -> str:
    """A summary for a pull request or a job's page.

    Args:
        name: of the run.
        budget: where the budget is from, such as the path of its file.
        verdicts: what `judge` returned.
        baseline: the run that rules compared with, if one was given.
    """
    count = counted(verdicts)
    outcome = "broken" if count["broken"] else "missing figures" if count["missing"] else "kept"
    compared = f" Baseline: {_escaped(baseline)}." if baseline else ""
    lines = [
        f"## Budget of {_escaped(name)}: {outcome}",
        "",
        f"{count_line(verdicts)}. Judged by {_escaped(budget)}.{compared}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'|'.join('--:' if title in _RIGHT else ':--' for title in _COLUMNS)}|",
    ]
    for each in verdicts:
        *cells, verdict = (_escaped(cell) for cell in _cells(each))
        shown = verdict if each.verdict == "kept" else f"**{verdict}**"
        lines.append(f"| {' | '.join([*cells, shown])} |")
    if missing := missing_lines(verdicts):
        lines += ["", *(f"- {_escaped(line)}" for line in missing)]
    return "\n".join(lines) + "\n"


def document(
    name: str, budget: str, verdicts: Sequence[Verdict], baseline: str | None = None
) -> dict[str, Any]:
    """Plain values for JSON, every digit kept; arguments as for `markdown`."""
    return {
        "run": name,
        "budget": budget,
        "baseline": baseline,
        **counted(verdicts),
        "verdicts": [each.document() for each in verdicts],
    }


def require_kept(name: str, verdicts: Sequence[Verdict]) -> None:
    """Passes when every limit is kept.

    Raises:
        TfpruneError: one is broken, whatever else is missing: that is certain already.
        UsageError: none is broken, but a figure is missing.
    """
    for word, error in (("broken", TfpruneError), ("missing", UsageError)):
        # A reason may hold for several limits; what is counted are limits, as in the last line.
        these = [each.told for each in verdicts if each.verdict == word]
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
        verdict.measured,
        verdict.needed,
        verdict.room,
        verdict.verdict,
    ]


def _escaped(text: str) -> str:
    # A summary is posted to chats as well.
    return escaping.markdown(text, everywhere=True)
