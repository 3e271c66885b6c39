"""The report as Markdown, for a README or an issue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tfprune.report import escaping
from tfprune.report.html.cells import headline, test_images
from tfprune.report.html.chance import interval
from tfprune.report.html.provenance import provenance
from tfprune.report.html.words import options
from tfprune.report.render import render
from tfprune.report.run import Delivery, Run, Step
from tfprune.report.summary import over_seeds, per_layer, spread
from tfprune.report.tables import is_measured
from tfprune.training import Training


def markdown(run: Run, table: pd.DataFrame, layers: pd.DataFrame) -> str:
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
    missing = [f"- {escaping.markdown(line)}" for line in run.notes()]
    origin = provenance(run)
    sessions = [
        line
        for session in origin["sessions"]
        for line in (
            f"- command: {escaping.markdown_code(session['command'])}",
            f"- commit: {escaping.markdown(session['commit'])}",
            *(
                f"- {key}: {escaping.markdown(session[key])}"
                for key in ("versions", "machine")
                if session[key]
            ),
            f"- begun {session['begun']}, ended {session['ended']}",
        )
    ]
    return "\n".join(
        [
            f"# {escaping.markdown(run.record.get('name') or run.directory.name)}",
            "",
            *(["**Not finished**", "", *missing, ""] if missing else []),
            "Accuracy and loss are those of each artifact itself on the whole test set, run by "
            "its own runtime. Latency is the median of one image on one TFLite thread; the "
            "artifacts of a library are timed in turn. Epochs and seconds an epoch are those of "
            "the variant's whole chain of steps. TFLite folds BatchNorm into its convolutions, so"
            " it has fewer parameters." + _chance(run, table),
            "",
            render(over_seeds(table), "markdown"),
            "## Sparsity per layer",
            "",
            render(per_layer(layers), "markdown"),
            "## How it was made",
            "",
            *chains,
            *([f"- all steps that train: {_listed(common)}"] if common else []),
            "",
            f"- data: {escaping.markdown(origin['data'])}",
            f"- model: {escaping.markdown(origin['model'])}",
            f"- seeds: {origin['seeds']}",
            *sessions,
            "",
            "Plots, training curves and links to every record: [report.html](report.html).",
            "",
        ]
    )


def _chance(run: Run, table: pd.DataFrame) -> str:
    means = spread(table[is_measured(table)]).means
    form = headline(means)
    # The first variant has that format.
    row = means[means["artifact"] == form].iloc[0]
    images = test_images(run).get((str(row["variant"]), form))
    if not images or pd.isna(row["accuracy"]):
        return ""
    low, high = interval(row["accuracy"], images)
    return (
        f" With {images:,} test images the accuracy of "
        f"{escaping.markdown(row['variant'])} as {escaping.markdown(form)} has a 95% "
        f"interval from {low:.1%} to {high:.1%}."
    )


def _common(run: Run) -> dict[str, Any]:
    """What all steps that train are given alike; what tells them apart stands with each."""
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
        and all(key in each and each[key] == value for each in trained)
    }


_TRAINING = frozenset(Training.model_fields)


def _chain(delivery: Delivery, common: Mapping[str, Any]) -> str:
    steps = [_step(step, common) for step in delivery.steps]
    variant = escaping.markdown(delivery.variant)
    return f"- **{variant}**: {' → '.join(steps) or 'the model as it was given'}"


def _step(step: Step, common: Mapping[str, Any]) -> str:
    trains = "epochs" in step.specification
    said = {key: step.specification[key] for key in step.given if not (trains and key in common)}
    kind = str(step.specification.get("kind", "step"))
    name = escaping.markdown(str(step.record["step"]))
    values = _listed(said)
    return f"{name} ({escaping.markdown(kind)}{': ' if values else ''}{values})"


def _listed(values: Mapping[str, Any]) -> str:
    """Keys and values on one line; the keys of our own tables are plain words."""
    return options(
        {
            key if key.isidentifier() else escaping.markdown(key): escaping.markdown(str(value))
            for key, value in values.items()
        }
    )
