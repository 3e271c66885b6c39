"""The comparison: its result, and rows of cells with links to the records they are read from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pandas as pd

from tfprune import figures
from tfprune.figures import ACCURACY, Figure
from tfprune.files import RECORD
from tfprune.report.html.tradeoff import pareto_front
from tfprune.report.run import LATENCY, Delivery, Run
from tfprune.report.sentences import describe_against, percent
from tfprune.report.tables import Spread, confidence_interval, example_count

_TO, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

# Of a sweep, so many variants are named in the result.
_NAMED = 8
# Columns that are computed from several records, so that no link leads to their source.
_CHANGE, _INTERVAL, _RATIO = "change", "interval", " ratio"


@dataclass(frozen=True)
class Column:
    """A column of the comparison.

    Attributes:
        name: a figure's, or that of what is computed from one.
        heading: above the column.
        meaning: shown where the mouse rests on the heading.
        look: its class in the style sheet.
    """

    name: str
    heading: str
    meaning: str
    look: str = ""


def main_columns(by: Figure = ACCURACY) -> tuple[Column, ...]:
    """The columns of the first table: the compared figure, and each cost with its ratio."""
    change = "percentage points" if by.is_share else "difference"
    columns = [
        Column(by.name, by.column_heading, f"{by.meaning}; {by.better} is better", "strong"),
        Column(_CHANGE, "change", f"{change} against the first variant in the same format"),
    ]
    if by.proportion:
        meaning = f"of the {by.noun}, from the number of test examples (Wilson)"
        columns.append(Column(_INTERVAL, "95% interval", meaning, "quiet"))
    for cost in map(figures.figure, figures.COSTS):
        meaning = f"{cost.noun} against the first variant"
        columns += [_column(cost), Column(cost.name + _RATIO, "ratio", meaning, "quiet")]
    return tuple(columns)


def more_columns(by: Figure = ACCURACY) -> tuple[Column, ...]:
    """The columns of the second table: every other figure."""
    main = (by.name, *figures.COSTS)
    return tuple(_column(row) for row in figures.compared(by) if row.name not in main)


def _column(row: Figure, look: str = "") -> Column:
    return Column(row.name, row.page_heading or row.column_heading, row.meaning, look)


@dataclass(frozen=True)
class Cell:
    """One figure: its text, and where it comes from, or None."""

    text: str
    href: str | None = None


@dataclass(frozen=True)
class Row:
    """One artifact of a variant: its cells, and a list of links a seed."""

    artifact: str
    main: tuple[Cell, ...]
    more: tuple[Cell, ...]
    sources: tuple[tuple[int, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True)
class Group:
    """A variant and its artifacts."""

    variant: str
    rows: tuple[Row, ...]


def link(run: Run, path: Any) -> str:
    """A relative reference from the report to a file of the run."""
    # "./" keeps a folder with a colon in its name from reading as another scheme.
    return "./" + quote(path.relative_to(run.directory).as_posix())


def example_counts(run: Run) -> dict[tuple[str, str], int]:
    """How many test examples an artifact was evaluated on, by variant and format.

    The examples are the same for every seed, so more seeds do not make them more.
    """
    return {
        (delivery.variant, artifact["format"]): count
        for delivery in run.deliveries
        for artifact in delivery.record["artifacts"]
        if (count := example_count(artifact))
    }


def groups(run: Run, spread: Spread) -> tuple[Group, ...]:
    """The rows of the comparison, the first variant first.

    Args:
        run: what was read.
        spread: of its comparison.
    """
    means, examples, by = spread.means, example_counts(run), run.figure
    main, more = main_columns(by), more_columns(by)
    first = {
        str(row["artifact"]): row
        for row in means[means["variant"] == means["variant"].iloc[0]].to_dict("records")
    }
    rows: dict[str, list[Row]] = {}
    for place, row in enumerate(means.to_dict("records")):
        variant, artifact = str(row["variant"]), str(row["artifact"])
        sources = _sources(run, variant, artifact)
        base = first.get(artifact)
        count = examples.get((variant, artifact))
        texts = _texts(row, spread.deviations.iloc[place], base, count, by)
        rows.setdefault(variant, []).append(
            Row(
                artifact,
                tuple(_cell(column.name, texts, sources, by) for column in main),
                tuple(_cell(column.name, texts, sources, by) for column in more),
                tuple((seed, tuple(links.items())) for seed, links in sources.items()),
            )
        )
    return tuple(Group(variant, tuple(artifacts)) for variant, artifacts in rows.items())


def _texts(
    row: Mapping[Any, Any],
    deviations: pd.Series,
    first: Mapping[Any, Any] | None,
    examples: int | None,
    by: Figure,
) -> dict[str, str]:
    texts = {
        column: figures.figure(str(column), by).text(row[column], deviations[column])
        for column in deviations.index
        if column not in ("run", "variant", "artifact")
    }
    texts |= {_CHANGE: "", _INTERVAL: ""}
    for cost in figures.COSTS:
        base = first[cost] if first is not None else float("nan")
        texts[cost + _RATIO] = percent(row[cost] / base) if base else ""
    if first is not None:
        texts[_CHANGE] = _change(row[by.name], first[by.name], by)
    if first is row or (first is not None and first["variant"] == row["variant"]):
        texts |= dict.fromkeys([_CHANGE, *(cost + _RATIO for cost in figures.COSTS)], "")
    if by.proportion and examples and not pd.isna(row[by.name]):
        low, high = confidence_interval(row[by.name], examples)
        texts[_INTERVAL] = f"{100 * low:.1f}{_TO}{high:.1%}"
    return {column: text.replace("-", _MINUS) for column, text in texts.items()}


def _change(value: float, base: float, by: Figure) -> str:
    """The signed change of a figure; one that rounds to nothing has no sign."""
    if not math.isfinite(value - base):
        return ""
    number = figures.change(by).number
    digits = by.number.places(max(value, base, key=abs))
    text = number.text(by.change(value, base), digits)
    nothing = number.text(0.0, digits)
    return nothing.lstrip("+") if text.lstrip("+-") == nothing.lstrip("+") else text


def _sources(run: Run, variant: str, artifact: str) -> dict[int, dict[str, str]]:
    """Links by seed, then by what they lead to: record, file and latency."""
    links: dict[int, dict[str, str]] = {}
    for delivery in run.deliveries:
        if delivery.variant != variant:
            continue
        for entry in delivery.record["artifacts"]:
            if entry["format"] == artifact:
                links[delivery.seed] = _links(run, delivery, entry)
    return links


def _links(run: Run, delivery: Delivery, artifact: Mapping[str, Any]) -> dict[str, str]:
    links = {
        "record": link(run, delivery.folder / RECORD),
        "file": link(run, delivery.folder / artifact["path"]),
    }
    if run.latency_of(delivery, artifact) is not None:
        timed = run.directory / LATENCY / f"seed-{delivery.seed}" / RECORD
        links["latency"] = link(run, timed)
    return links


def _cell(
    column: str,
    texts: Mapping[str, str],
    sources: Mapping[int, Mapping[str, str]],
    by: Figure,
) -> Cell:
    text = texts.get(column, "")
    # A mean over seeds comes from several files: those are the row's sources.
    row = figures.by_name(by).get(column)
    if len(sources) != 1 or row is None or not text:
        return Cell(text)
    (links,) = sources.values()
    return Cell(text, links.get(row.source if row.source in ("file", "latency") else "record"))


def headline_format(means: pd.DataFrame) -> str:
    """The format of the main result: TFLite if the first variant has it, else its first format."""
    first = means["variant"] == means["variant"].iloc[0]
    formats: Sequence[str] = [str(form) for form in means.loc[first, "artifact"]]
    return "tflite" if "tflite" in formats else formats[0]


def result(run: Run, spread: Spread) -> dict[str, Any]:
    """The first variant's figure, and the change of each other one, in one format.

    Args:
        run: what was read.
        spread: of its comparison.
    """
    form, by = headline_format(spread.means), run.figure
    first = str(spread.means["variant"].iloc[0])
    # A variant that has other formats only is compared in the first of them.
    ranked = spread.means.assign(other=spread.means["artifact"] != form)
    rows = ranked.sort_values("other", kind="stable").drop_duplicates("variant").sort_index()
    base = rows.to_dict("records")[0]
    examples = example_counts(run).get((first, form))
    others = rows[rows["variant"] != first]
    chosen = others
    if len(others) > _NAMED:
        # Of a sweep, the Pareto front: smallest first, the best of them kept.
        size = figures.COSTS[0]
        front = pareto_front(others[size], by.gain(others[by.name]))
        chosen = others[front].sort_values(size).tail(_NAMED)
    values: dict[str, Any] = {
        "first": first,
        "form": form,
        "by": by,
        "value": by.text(base[by.name]),
        "seeds": int(spread.seeds[rows.index].iloc[0]),
        "alike": not rows["other"].any(),
        "examples": examples,
        "sure": bool(by.proportion and examples),
        "changes": [
            (
                str(row["variant"]),
                (f"as {row['artifact']}: " if row["other"] else "")
                + describe_against(row, base, by),
            )
            for row in chosen.to_dict("records")
        ],
        "others": len(others),
    }
    if values["sure"]:
        share = base[by.name]
        low, high = confidence_interval(share, examples or 0)
        values |= {
            "low": f"{low:.1%}",
            "high": f"{high:.1%}",
            "error": f"{100 * math.sqrt(share * (1 - share) / (examples or 1)):.2f}",
        }
    return values
