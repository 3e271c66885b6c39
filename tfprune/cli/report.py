"""`tfprune report`."""

from __future__ import annotations

from pathlib import Path

import click

from tfprune.cli import options


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--mlflow",
    "tracking",
    metavar="URI",
    help="Also log the run to MLflow: a server, or sqlite:///mlflow.db. Needs tfprune[mlflow].",
)
def report_command(run: Path, tracking: str | None) -> None:
    """Write the report of RUN, a directory such as saved_models/digits, anew.

    report.html is one file that needs no network; report.md, comparison.csv, comparison.json and
    layers.csv lie beside it. `tfprune run` writes them at its end.
    """
    from tfprune.report import read_run, write_report

    click.echo(write_report(run))
    this = read_run(run)
    options.print_missing([this])
    if tracking is not None:
        from tfprune.report.tracking import log_to_mlflow

        new = log_to_mlflow(this, tracking)
        click.echo(f"{len(new)} new runs in MLflow at {tracking}", err=True)
