"""What filter pruning cost in a finished run: one row a variant, over all of its seeds.

Accuracy and latency are those of the float TFLite files on the test set. What was lost before
any fine-tuning is told by the validation accuracies that the step which removes filters records,
since the test set is looked at only once, at the end.
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from benchmarks import runs
from tfprune.report import comparison, read_run
from tfprune.report.run import Delivery

FORMAT = "tflite"


def when_removed(delivery: Delivery) -> dict[str, float]:
    """Validation accuracy before filters went, without them, and with new BatchNorm statistics."""
    for step in delivery.steps:
        # A slim architecture that is trained from scratch has nothing of what was before.
        if any(each.record["specification"].get("rewind") == "reinit" for each in delivery.steps):
            break
        if step.record["specification"]["kind"] == "slim":
            return dict(step.record["validation_accuracy"])
    return {}


def rows(directory: Path) -> pd.DataFrame:
    """One row a variant and seed."""
    run = read_run(directory)
    table = comparison(run).query("artifact == @FORMAT").set_index(["variant", "seed"])
    removed = {(each.variant, each.seed): when_removed(each) for each in run.deliveries}
    first = next(iter(run.record["pipeline"]["variants"]))
    found = []
    for (variant, seed), row in table.iterrows():
        dense = table.loc[(first, seed)]
        found.append(
            {
                "variant": variant,
                "seed": seed,
                "accuracy": row["accuracy"],
                "points": 100 * (row["accuracy"] - dense["accuracy"]),
                "macs": row["macs"] / dense["macs"],
                "parameters": row["parameters"] / dense["parameters"],
                "bytes": row["bytes"] / dense["bytes"],
                "speedup": dense["latency_ms"] / row["latency_ms"],
                "epochs": row["epochs"],
                **{f"validation_{name}": each for name, each in removed[variant, seed].items()},
            }
        )
    return pd.DataFrame(found)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a variant, in words: mean and sample deviation over seeds."""

    def told(group: pd.DataFrame) -> pd.Series:
        said = {
            "seeds": len(group),
            "test accuracy": runs.spread(100 * group["accuracy"]),
            "against dense": runs.spread(group["points"]),
            "MACs": f"{group['macs'].mean():.1%}",
            "parameters": f"{group['parameters'].mean():.1%}",
            "TFLite speed-up": f"{group['speedup'].mean():.2f}x",
            "epochs": f"{group['epochs'].mean():.0f}",
        }
        for name, title in (
            ("before", "validation before removal"),
            ("removed", "after"),
            ("recalibrated", "recalibrated"),
        ):
            values = group.get(f"validation_{name}", pd.Series(dtype=float)).dropna()
            said[title] = f"{100 * values.mean():.2f}" if len(values) else ""
        return pd.Series(said)

    return table.groupby("variant", sort=False).apply(told, include_groups=False).reset_index()


@runs.command
def filters(run: Path, output: Path) -> None:
    """Tell what filter pruning cost in RUN, the directory of a run with all its variants."""
    table = rows(run)
    note = (
        "Percent and percentage points; mean ± sample deviation over seeds. Accuracy, speed-up "
        "(one image, one thread, all files of a seed timed in turn) and size are of the float "
        "TFLite files; the test set is looked at once, at the end. Validation accuracies are from "
        "the moment when filters went, before anything was trained again."
    )
    tables = table, summary(table)
    click.echo(runs.write(output, read_run(run).record, "benchmarks.filters", note, tables))


if __name__ == "__main__":
    filters()
