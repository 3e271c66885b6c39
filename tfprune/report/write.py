"""The report of a run, as files beside its artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.files import write_text
from tfprune.report.render import render
from tfprune.report.run import read_run
from tfprune.report.summary import over_seeds, per_layer
from tfprune.report.tables import comparison, layer_sparsity


def write_report(run: Path) -> Path:
    """Writes `report.md`, and the tables it shows as CSV and JSON with every digit.

    Args:
        run: the directory of a finished run.

    Returns:
        The path of `report.md`.

    Raises:
        TfpruneError: the run is not finished, or its directory cannot be written.
    """
    this = read_run(run)
    table, layers = comparison(this), layer_sparsity(this)
    write_text(run / "comparison.csv", render(table, "csv"))
    write_text(run / "comparison.json", render(table, "json"))
    write_text(run / "layers.csv", render(layers, "csv"))
    text = _markdown(
        this.record,
        list(table["variant"].unique()),
        render(over_seeds(table), "markdown"),
        render(per_layer(layers), "markdown"),
    )
    return write_text(run / "report.md", text)


def _markdown(record: dict[str, Any], variants: list[str], table: str, layers: str) -> str:
    pipeline = record["pipeline"]
    chains = [
        f"- **{variant}**: "
        + " → ".join(_step(name, pipeline["steps"][name]) for name in pipeline["variants"][variant])
        for variant in variants
    ]
    session = record["sessions"][-1]
    machine = session["machine"]
    return "\n".join(
        [
            f"# {pipeline['name']}",
            "",
            "Accuracy and loss are those of each artifact itself on the whole test set, run by its "
            "own runtime. Latency is the median of one image on one TFLite thread, all artifacts "
            "timed in turn. Epochs and seconds an epoch are those of the variant's whole chain of "
            "steps. TFLite folds BatchNorm into its convolutions, so it has fewer parameters.",
            "",
            table,
            "## Sparsity per layer",
            "",
            layers,
            "## How it was made",
            "",
            *chains,
            "",
            f"- data: {record['data']}",
            f"- model: {pipeline['model']['name']} {_options(pipeline['model']['options'])}",
            f"- seeds: {', '.join(map(str, record['seeds']))}",
            f"- command: `{session['command']}`",
            f"- commit: {session['commit']}",
            f"- versions: {_options(session['versions'])}",
            f"- machine: {machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, {machine['system']}",
            f"- begun {session['begun']}, ended {session['ended']}",
            "",
        ]
    )


def _options(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _step(name: str, step: dict[str, Any]) -> str:
    shown = {
        "train": ("epochs", "learning_rate"),
        "prune": ("sparsity", "epochs", "learning_rate"),
        "learn": ("strength", "epochs", "learning_rate"),
        "slim": ("filters", "macs", "params", "dead", "importance", "round_to"),
    }[step["kind"]]
    said = [f"{key} {step[key]}" for key in shown if step[key] not in (None, False)]
    return f"{name} ({step['kind']}: {', '.join(said)})"
