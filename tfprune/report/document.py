"""The files of a report: Markdown for a README or an issue, the HTML page, and their tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.files import write_text
from tfprune.report.devices import device_notes, device_summary, device_table
from tfprune.report.html.comparison import example_counts, headline_format
from tfprune.report.html.page import page
from tfprune.report.run import Delivery, Run, Step, read_run
from tfprune.report.sentences import key_values, provenance
from tfprune.report.tables import (
    confidence_interval,
    is_measured,
    layer_sparsity,
    over_seeds,
    per_layer,
    planned,
    spread,
)
from tfprune.report.text import code_span, escape_markdown, render
from tfprune.report.tickets import tickets, tickets_file
from tfprune.training import Training

_TRAINING = frozenset(Training.model_fields)


def write_report(run: Path) -> Path:
    """Writes `report.html` and `report.md`, and their tables as CSV and JSON with every digit.

    Example:
        >>> write_report(Path("saved_models/digits"))
        PosixPath('saved_models/digits/report.html')

    Where a run prunes in rounds, `tickets.csv` and `tickets.svg` are its levels.

    Args:
        run: the directory of a run with at least one finished variant.

    Returns:
        The path of `report.html`, which links to files of the run and loads nothing.

    Raises:
        TfpruneError: no variant is finished, or the directory cannot be written.
    """
    read = read_run(run)
    table, layers = planned(read), layer_sparsity(read)
    write_text(run / "comparison.csv", render(table, "csv"))
    write_text(run / "comparison.json", render(table, "json"))
    write_text(run / "layers.csv", render(layers, "csv"))
    on_devices = device_table(read)
    if len(on_devices):
        write_text(run / "devices.csv", render(on_devices, "csv"))
    levels = tickets(read)
    if len(levels):
        write_text(run / "tickets.csv", render(levels, "csv"))
        write_text(run / "tickets.svg", tickets_file(levels, read.figure))
    write_text(run / "report.md", markdown_report(read, table, layers))
    # Last, so that all that it links to is there.
    return write_text(run / "report.html", page(read, table, layers))


def markdown_report(run: Run, table: pd.DataFrame, layers: pd.DataFrame) -> str:
    """The tables of a run, how it was made and where it comes from.

    Args:
        run: what `read_run` read.
        table: its table of `planned`.
        layers: its `layer_sparsity`.
    """
    firsts = {delivery.variant: delivery for delivery in reversed(run.deliveries)}
    common = _common(run)
    chains = [
        _chain(firsts[variant], common)
        for variant in table["variant"].unique()
        if variant in firsts
    ]
    missing = [f"- {escape_markdown(line)}" for line in run.notes()]
    origin, by = provenance(run), run.figure
    measured = f"{escape_markdown(by.sentence)} ({by.better} is better)"
    measured += " is that" if by.name == "loss" else " and loss are those"
    sessions = [
        line
        for session in origin["sessions"]
        for line in (
            f"- command: {code_span(session['command'])}",
            f"- commit: {escape_markdown(session['commit'])}",
            *(
                f"- {key}: {escape_markdown(session[key])}"
                for key in ("versions", "machine")
                if session[key]
            ),
            f"- begun {session['begun']}, ended {session['ended']}",
        )
    ]
    return "\n".join(
        [
            f"# {escape_markdown(run.record.get('name') or run.directory.name)}",
            "",
            *(["**Not finished**", "", *missing, ""] if missing else []),
            f"{measured} of each artifact itself on the whole test set, run by its own runtime. "
            "Latency is the median of one example on one TFLite thread; the artifacts of a "
            "library are timed in turn. Epochs and seconds an epoch are those of the variant's "
            "whole chain of steps. TFLite folds BatchNorm into its convolutions, so it has fewer "
            "parameters." + _interval(run, table),
            "",
            render(over_seeds(table, by), "markdown", by),
            *_on_devices(run),
            "## Sparsity per layer",
            "",
            render(per_layer(layers), "markdown"),
            "## How it was made",
            "",
            *chains,
            *([f"- all steps that train: {_listed(common)}"] if common else []),
            "",
            f"- data: {escape_markdown(origin['data'])}",
            f"- model: {escape_markdown(origin['model'])}",
            f"- seeds: {origin['seeds']}",
            *sessions,
            "",
            "Plots, training curves and links to every record: [report.html](report.html).",
            "",
        ]
    )


def _on_devices(run: Run) -> list[str]:
    """The figures of devices, where a run has some."""
    table = device_table(run)
    notes = [f"- {escape_markdown(line)}" for line in device_notes(run)]
    if table.empty:
        return ["## On devices", "", *notes, ""] if notes else []
    said = [
        "Means over seeds; in brackets the share of the first variant's in the same format on the "
        "same device." + (" An estimate is that of a compiler." if table["estimated"].any() else "")
    ]
    shown = render(device_summary(table), "markdown")
    return ["## On devices", "", *said, "", shown, *notes, *([""] if notes else [])]


def _interval(run: Run, table: pd.DataFrame) -> str:
    """How sure the first variant's figure is; nothing of one that is not a share of examples."""
    by = run.figure
    means = spread(table[is_measured(table)]).means
    form = headline_format(means)
    # The first variant has that format.
    row = means[means["artifact"] == form].iloc[0]
    examples = example_counts(run).get((str(row["variant"]), form))
    if not by.proportion or not examples or pd.isna(row[by.name]):
        return ""
    low, high = confidence_interval(row[by.name], examples)
    return (
        f" With {examples:,} test examples the {escape_markdown(by.noun)} of "
        f"{escape_markdown(row['variant'])} as {escape_markdown(form)} has a 95% "
        f"interval from {low:.1%} to {high:.1%}."
    )


def _common(run: Run) -> dict[str, Any]:
    """The keys that all steps that train were given with the same value."""
    trained = [
        {key: step.specification[key] for key in step.given if key in _TRAINING}
        for delivery in run.deliveries
        for step in delivery.steps
        if "epochs" in step.specification
    ]
    first = trained[0] if trained else {}
    return {
        key: value
        for key, value in first.items()
        if key not in ("epochs", "learning_rate")
        and all(key in given and given[key] == value for given in trained)
    }


def _chain(delivery: Delivery, common: Mapping[str, Any]) -> str:
    steps = [_step(step, common) for step in delivery.steps]
    variant = escape_markdown(delivery.variant)
    return f"- **{variant}**: {' → '.join(steps) or 'the model as it was given'}"


def _step(step: Step, common: Mapping[str, Any]) -> str:
    trains = "epochs" in step.specification
    own = {key: step.specification[key] for key in step.given if not (trains and key in common)}
    kind = str(step.specification.get("kind", "step"))
    name = escape_markdown(str(step.record["step"]))
    values = _listed(own)
    return f"{name} ({escape_markdown(kind)}{': ' if values else ''}{values})"


def _listed(values: Mapping[str, Any]) -> str:
    """Keys and values on one line; the keys of our own tables are plain words."""
    return key_values(
        {
            key if key.isidentifier() else escape_markdown(key): escape_markdown(str(value))
            for key, value in values.items()
        }
    )
