"""The report as Markdown, for a README or an issue."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tfprune.report.html.cells import headline, test_images
from tfprune.report.html.chance import interval
from tfprune.report.html.provenance import options, provenance
from tfprune.report.render import render
from tfprune.report.run import Delivery, Run
from tfprune.report.summary import over_seeds, per_layer, spread


def markdown(run: Run, table: pd.DataFrame, layers: pd.DataFrame) -> str:
    """The tables of a run, how it was made and where it comes from.

    Args:
        run: what `read_run` read.
        table: its `comparison`.
        layers: its `layer_sparsity`.
    """
    firsts = {delivery.variant: delivery for delivery in reversed(run.deliveries)}
    chains = [_chain(firsts[variant]) for variant in table["variant"].unique()]
    origin = provenance(run)
    sessions = [
        line
        for session in origin["sessions"]
        for line in (
            f"- command: `{session['command']}`",
            f"- commit: {session['commit']}",
            *(f"- {key}: {session[key]}" for key in ("versions", "machine") if session[key]),
            f"- begun {session['begun']}, ended {session['ended']}",
        )
    ]
    return "\n".join(
        [
            f"# {run.record.get('name') or run.directory.name}",
            "",
            "Accuracy and loss are those of each artifact itself on the whole test set, run by its "
            "own runtime. Latency is the median of one image on one TFLite thread, all artifacts "
            "timed in turn. Epochs and seconds an epoch are those of the variant's whole chain of "
            "steps. TFLite folds BatchNorm into its convolutions, so it has fewer parameters."
            + _chance(run, table),
            "",
            render(over_seeds(table), "markdown"),
            "## Sparsity per layer",
            "",
            render(per_layer(layers), "markdown"),
            "## How it was made",
            "",
            *chains,
            "",
            f"- data: {origin['data']}",
            f"- model: {origin['model']}",
            f"- seeds: {origin['seeds']}",
            *sessions,
            "",
            "Plots, training curves and links to every record: [report.html](report.html).",
            "",
        ]
    )


def _chance(run: Run, table: pd.DataFrame) -> str:
    means = spread(table).means
    form = headline(means)
    # The first variant has that format.
    row = means[means["artifact"] == form].iloc[0]
    images = test_images(run).get((str(row["variant"]), form))
    if not images or pd.isna(row["accuracy"]):
        return ""
    low, high = interval(row["accuracy"], images)
    return (
        f" With {images:,} test images the accuracy of {row['variant']} as {form} has a 95% "
        f"interval from {low:.1%} to {high:.1%}."
    )


def _chain(delivery: Delivery) -> str:
    steps = [_step(step.record) for step in delivery.steps]
    return f"- **{delivery.variant}**: {' → '.join(steps) or 'the model as it was given'}"


_SHOWN = {
    "train": ("epochs", "learning_rate"),
    "prune": ("sparsity", "epochs", "learning_rate"),
    "prune-once": ("share", "scope", "select", "layers"),
    "round": ("bits",),
    "learn": ("strength", "epochs", "learning_rate"),
    "retrain": ("rewind", "epoch", "epochs", "learning_rate"),
    "slim": ("filters", "macs", "params", "dead", "importance", "round_to"),
}


def _step(record: dict[str, Any]) -> str:
    specification = record.get("specification", {})
    kind = str(specification.get("kind", "step"))
    shown = _SHOWN.get(kind, tuple(key for key in specification if key != "kind"))
    said = {
        key: specification[key]
        for key in shown
        if specification.get(key) not in (None, False, [], {})
    }
    return f"{record['step']} ({kind}: {options(said)})"
