"""The comparison as rows of cells, each with a link to where its figure comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pandas as pd

from tfprune.report.html.chance import interval
from tfprune.report.html.words import percent
from tfprune.report.render import measured
from tfprune.report.run import Delivery, Run
from tfprune.report.summary import Spread

_TO, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

# Column, heading, what the heading means.
MAIN = (
    ("accuracy", "accuracy", "share of the test images that the artifact itself gets right"),
    ("change", "change", "percentage points against the first variant in the same format"),
    ("interval", "95% interval", "of the accuracy, from the number of test images (Wilson)"),
    ("bytes_gzip", "compressed", "size of the file in gzip"),
    ("bytes_gzip_share", "ratio", "compressed size against the first variant"),
    ("macs", "MACs", "multiply-accumulates of one example"),
    ("macs_share", "ratio", "MACs against the first variant"),
    ("latency_ms", "latency", "median of one image"),
    ("latency_ms_share", "ratio", "latency against the first variant"),
)
MORE = (
    ("loss", "loss", "cross-entropy on the test set, nats"),
    ("parameters", "params", "parameters in the artifact"),
    ("nonzero", "non-zero", "parameters that are not zero"),
    ("sparsity", "zeros", "share of parameters that are zero"),
    ("bytes", "size", "size of the file"),
    ("epochs", "epochs", "of the whole chain"),
    ("epoch_seconds", "s/epoch", "mean over the whole chain"),
    ("test_seconds", "test s", "seconds for the whole test set"),
)


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


def test_images(run: Run) -> dict[tuple[str, str], int]:
    """How many test images were looked at, by variant and artifact format.

    The images are the same for every seed, so more seeds do not make them more.
    """
    return {
        (delivery.variant, artifact["format"]): artifact["test_images"]
        for delivery in run.deliveries
        for artifact in delivery.record["artifacts"]
        if artifact.get("test_images")
    }


def groups(run: Run, spread: Spread) -> tuple[Group, ...]:
    """The rows of the comparison, the first variant first.

    Args:
        run: what was read.
        spread: of its comparison.
    """
    means = spread.means
    images = test_images(run)
    first = {
        str(row["artifact"]): row
        for row in means[means["variant"] == means["variant"].iloc[0]].to_dict("records")
    }
    found: dict[str, list[Row]] = {}
    for place, row in enumerate(means.to_dict("records")):
        variant, artifact = str(row["variant"]), str(row["artifact"])
        sources = _sources(run, variant, artifact)
        base = first.get(artifact)
        texts = _texts(row, spread.deviations.iloc[place], base, images.get((variant, artifact)))
        found.setdefault(variant, []).append(
            Row(
                artifact,
                tuple(_cell(column, texts, sources) for column, *_ in MAIN),
                tuple(_cell(column, texts, sources) for column, *_ in MORE),
                tuple((seed, tuple(links.items())) for seed, links in sources.items()),
            )
        )
    return tuple(Group(variant, tuple(rows)) for variant, rows in found.items())


def _texts(
    row: Mapping[Any, Any],
    deviations: pd.Series,
    first: Mapping[Any, Any] | None,
    images: int | None,
) -> dict[str, str]:
    texts = {
        column: measured(column, row[column], deviations[column])
        for column in deviations.index
        if column not in ("run", "variant", "artifact")
    }
    texts |= {"change": "", "interval": ""}
    for column in ("bytes_gzip", "macs", "latency_ms"):
        base = first[column] if first is not None else float("nan")
        texts[f"{column}_share"] = percent(row[column] / base) if base else ""
    if first is not None:
        # A change that rounds to nothing has no sign.
        points = round(100 * (row["accuracy"] - first["accuracy"]), 2) + 0.0
        texts["change"] = "" if pd.isna(points) else f"{points:+.2f}" if points else "0.00"
    if first is row or (first is not None and first["variant"] == row["variant"]):
        texts |= {"change": "", "bytes_gzip_share": "", "macs_share": "", "latency_ms_share": ""}
    if images and not pd.isna(row["accuracy"]):
        low, high = interval(row["accuracy"], images)
        texts["interval"] = f"{100 * low:.1f}{_TO}{high:.1%}"
    return {column: text.replace("-", _MINUS) for column, text in texts.items()}


def _sources(run: Run, variant: str, artifact: str) -> dict[int, dict[str, str]]:
    """Links by seed, then by what they lead to: record, file and latency."""
    found: dict[int, dict[str, str]] = {}
    for delivery in run.deliveries:
        if delivery.variant != variant:
            continue
        for one in delivery.record["artifacts"]:
            if one["format"] == artifact:
                found[delivery.seed] = _links(run, delivery, str(one["path"]))
    return found


def _links(run: Run, delivery: Delivery, file: str) -> dict[str, str]:
    path = delivery.folder / file
    links = {"record": link(run, delivery.folder / "record.json"), "file": link(run, path)}
    if path.relative_to(run.directory).as_posix() in run.latency_ms:
        timed = run.directory / "latency" / f"seed-{delivery.seed}" / "record.json"
        links["latency"] = link(run, timed)
    return links


_FROM = {"bytes": "file", "bytes_gzip": "file", "latency_ms": "latency"}
_DERIVED = ("change", "interval", "bytes_gzip_share", "macs_share", "latency_ms_share")


def _cell(column: str, texts: Mapping[str, str], sources: Mapping[int, Mapping[str, str]]) -> Cell:
    text = texts.get(column, "")
    # A mean over seeds comes from several files: those are the row's sources.
    if len(sources) != 1 or column in _DERIVED or not text:
        return Cell(text)
    (links,) = sources.values()
    return Cell(text, links.get(_FROM.get(column, "record")))


def headline(means: pd.DataFrame) -> str:
    """The format that the main result is told in: of the first variant's, TFLite where it is."""
    first = means["variant"] == means["variant"].iloc[0]
    formats: Sequence[str] = [str(each) for each in means.loc[first, "artifact"]]
    return "tflite" if "tflite" in formats else formats[0]
