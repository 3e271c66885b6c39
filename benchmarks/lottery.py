"""What the levels of a finished run that prunes in rounds kept: tickets, controls, rewinding.

Each method is compared with the dense net and with another method, level by level and seed by
seed, so that what the seeds have in common falls out of the difference.
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from benchmarks import runs
from tfprune.files import write_text
from tfprune.report import read_run, tickets
from tfprune.report.tickets import tickets_file


def rows(levels: pd.DataFrame, against: str | None) -> pd.DataFrame:
    """One row a method, level and seed.

    Args:
        levels: What `tickets` returned.
        against: A method; the first that prunes if None.

    Raises:
        click.UsageError: There is no such method.
    """
    methods = list(levels.loc[levels["level"] > 0, "method"].unique())
    against = against or methods[0]
    if against not in methods:
        raise click.UsageError(f"no method {against!r} in this run: {', '.join(methods)}")
    accuracy = levels.set_index(["method", "level", "seed"])["accuracy"]
    dense = levels.query("level == 0").groupby("seed")["accuracy"].first()
    table = levels.copy()
    table["to_dense"] = 100 * (table["accuracy"] - table["seed"].map(dense))
    keys = [(against, each.level, each.seed) for each in table.itertuples()]
    table["to_other"] = 100 * (table["accuracy"].to_numpy() - accuracy.reindex(keys).to_numpy())
    table["other"] = against
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method and level, in words: mean and sample deviation over seeds."""
    other = table["other"].iloc[0]

    def told(group: pd.DataFrame) -> pd.Series:
        beside = group["to_other"].dropna()
        return pd.Series(
            {
                "seeds": len(group),
                "density": f"{group['density'].mean():.1%}",
                "test accuracy": runs.spread(100 * group["accuracy"]),
                "against dense": runs.spread(group["to_dense"]),
                f"against {other}": runs.spread(beside) if len(beside) else "",
                "validation at early stop": runs.spread(100 * group["early_stop_val_accuracy"]),
                "early-stop epoch": f"{group['early_stop_epoch'].mean():.1f}",
            }
        )

    groups = table.groupby(["method", "level"], sort=False)
    return groups.apply(told, include_groups=False).reset_index()


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--against", help="The method that others are compared with.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"))
def lottery(run: Path, against: str | None, output: Path) -> None:
    """Tell what each level kept in RUN, the directory of a run that prunes in rounds."""
    record = read_run(run)
    levels = tickets(record)
    if levels.empty:
        raise click.ClickException(f"{run} does not prune in rounds: nothing to tell")
    table = rows(levels, against)
    note = (
        "Percent and percentage points; mean ± sample deviation over seeds; differences are of "
        "equal seeds. Density is of the kernels. The early-stop epoch is the one with the lowest "
        "validation loss; no training was stopped there, and test accuracy is of the last epoch. "
        f"The picture: [{record.record['name']}.svg]({record.record['name']}.svg)."
    )
    tables = table, summary(table)
    click.echo(runs.write(output, record.record, "benchmarks.lottery", note, tables))
    write_text(output / f"{record.record['name']}.svg", tickets_file(levels))


if __name__ == "__main__":
    lottery()
