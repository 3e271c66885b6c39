"""What a finished study kept: each method at each operating point, over its seeds.

Differences are of equal seeds. A method is compared with the dense net that was trained as long
(`dense-longer`), since epochs alone are worth something, and with the dense net that all variants
start from.
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from benchmarks import runs
from tfprune.report import comparison, read_run

START, LONGER = "dense", "dense-longer"


def rows(directory: Path) -> pd.DataFrame:
    """One row a variant and seed, of the float TFLite files; only seeds that every variant has.

    Raises:
        click.ClickException: the run has no dense net that was trained as long as the others.
    """
    table = comparison(read_run(directory)).query("artifact == 'tflite'")
    counts = table.groupby("seed")["variant"].nunique()
    table = table[table["seed"].isin(counts[counts == counts.max()].index)]
    accuracy = table.set_index(["variant", "seed"])["accuracy"]
    if missing := {START, LONGER} - set(table["variant"]):
        raise click.ClickException(
            f"{directory} has no variant {min(missing)!r} with a tflite file: every variant is "
            "compared with it"
        )
    start = table.query("variant == @START").set_index("seed")
    found = []
    for row in table.itertuples():
        dense = start.loc[row.seed]
        found.append(
            {
                "variant": row.variant,
                "seed": row.seed,
                "accuracy": row.accuracy,
                "to_longer": 100 * (row.accuracy - accuracy[LONGER, row.seed]),
                "to_start": 100 * (row.accuracy - dense["accuracy"]),
                "fewer_weights": dense["nonzero"] / row.nonzero,
                "fewer_macs": dense["macs"] / row.macs,
                "smaller_gzip": dense["bytes_gzip"] / row.bytes_gzip,
                "epochs": row.epochs,
            }
        )
    return pd.DataFrame(found)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a variant, in words: mean and sample deviation over seeds."""

    def told(group: pd.DataFrame) -> pd.Series:
        return pd.Series(
            {
                "seeds": len(group),
                "test accuracy": runs.spread(100 * group["accuracy"]),
                "against dense, as long": runs.spread(group["to_longer"]),
                "against dense": runs.spread(group["to_start"]),
                "fewer weights": f"{group['fewer_weights'].mean():.1f}x",
                "fewer MACs": f"{group['fewer_macs'].mean():.1f}x",
                "smaller, gzip": f"{group['smaller_gzip'].mean():.1f}x",
                "epochs": f"{group['epochs'].mean():.0f}",
            }
        )

    return table.groupby("variant", sort=False).apply(told, include_groups=False).reset_index()


@runs.command
def study(run: Path, output: Path) -> None:
    """Tell what each method of RUN, the directory of a finished study, kept."""
    table = rows(run)
    note = (
        "Percent and percentage points; mean ± sample deviation over seeds; differences are of "
        "equal seeds, and a seed that some variant lacks is left out. Accuracy is of the float "
        "TFLite files on the whole test set, of the last epoch, never the best one. Fewer "
        "weights counts all parameters that are not zero, biases and BatchNorm's included, and "
        "so is less than the kernels' own ratio; fewer MACs counts the removal of filters "
        "alone, since zeros are multiplied as well. Both, and the size by gzip -9, are ratios "
        "to `dense`."
    )
    tables = table, summary(table)
    click.echo(runs.write(output, read_run(run).record, "benchmarks.study", note, tables))


if __name__ == "__main__":
    study()
