"""`tfprune compare`, `tfprune report` and `tfprune check`: what a run on disk shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfprune.cli import options

if TYPE_CHECKING:
    from tfprune.devices import Device
    from tfprune.figures import Figure
    from tfprune.report.budgets.budget import Budget
    from tfprune.report.budgets.verdict import Verdict
    from tfprune.report.run import Run

_COLOURS = {"kept": "green", "broken": "red", "missing": "yellow"}
# GitHub shows what is appended to this file on the page of the job.
_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
    help="csv and json keep every digit and every seed.",
)
@click.option("--layers", is_flag=True, help="Only the table of sparsity per layer.")
def compare_command(runs: tuple[Path, ...], form: str, layers: bool) -> None:
    """Compare the artifacts of RUNS, directories such as saved_models/digits.

    Prints one row a variant and artifact, then the sparsity of every layer. csv and json print
    the first table only, or with --layers the second. All RUNS are of tasks that are compared by
    the same figure, such as the accuracy.
    """
    import pandas as pd

    from tfprune.report import (
        layer_sparsity,
        over_seeds,
        per_layer,
        planned,
        read_run,
        render,
    )

    exact = form in ("csv", "json")
    texts = []
    read = [read_run(run) for run in runs]
    options.print_missing(read)
    if not layers:
        by = _common_figure(read)
        table = pd.concat([planned(run) for run in read], ignore_index=True)
        texts.append(render(table if exact else over_seeds(table, by), form, by))
    if layers or not exact:
        zeros = pd.concat([layer_sparsity(run) for run in read], ignore_index=True)
        texts.append(render(zeros if exact else per_layer(zeros), form))
    click.echo("\n".join(texts), nl=False)


def _common_figure(runs: Sequence[Run]) -> Figure:
    """What all runs are compared by: figures of two kinds are not put into one table."""
    from tfprune.errors import UsageError

    first, *others = runs
    for other in others:
        if not other.figure.is_same(first.figure):
            raise UsageError(
                f"{first.directory} is compared by {first.figure.description}, and "
                f"{other.directory} by {other.figure.description}: give runs that are compared by "
                "the same figure"
            )
    return first.figure


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--mlflow",
    "tracking",
    metavar="URI",
    help="Also log the run to MLflow: a server, or sqlite:///mlflow.db. Needs tfprune[mlflow].",
)
@options.devices("first measure the run's artifacts on this device")
def report_command(run: Path, tracking: str | None, devices: list[Device]) -> None:
    """Write the report of RUN, a directory such as saved_models/digits, anew.

    report.html is one file that needs no network; report.md, comparison.csv, comparison.json and
    layers.csv lie beside it. `tfprune run` writes them at its end.
    """
    from tfprune.report import read_run, write_report

    _measure(run, devices)
    click.echo(write_report(run))
    this = read_run(run)
    options.print_missing([this])
    if tracking is not None:
        from tfprune.report.tracking import log_to_mlflow

        new = log_to_mlflow(this, tracking)
        click.echo(f"{len(new)} new runs in MLflow at {tracking}", err=True)


@click.command("check")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    "budget_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A TOML file of [[rules]], or a pipeline file with a [budget]; the run's own if not "
    "given.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="OLD_RUN",
    help="An earlier run: what max_drop, max_rise and the ratios compare with.",
)
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where JUnit XML goes; RUN/budget.xml if not given.",
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the Markdown summary goes; RUN/budget.md if not given. It is also appended to "
    f"the file that {_STEP_SUMMARY} names.",
)
@options.devices("first measure the run's artifacts on this device, which rules name")
@options.as_json
def check_command(
    run: Path,
    budget_file: Path | None,
    baseline: Path | None,
    junit: Path | None,
    summary: Path | None,
    devices: list[Device],
    as_json: bool,
) -> None:
    """Judge RUN, a directory such as saved_models/digits, by a budget.

    Prints each limit with the figure it is about, and writes JUnit XML and a Markdown summary.

    Exit code 0 means that every limit is kept, 1 that one is broken, 2 that none is broken but a
    figure is missing (or that the command was called wrongly).
    """
    from tfprune.files import write_text
    from tfprune.report.budgets import judge, judged_table, verdict
    from tfprune.report.run import read_run

    _measure(run, devices)
    this = read_run(run)
    budget, source = _budget(this, budget_file)
    before = read_run(baseline) if baseline else None
    options.print_missing([this])
    by = _common_figure([this, before] if before else [this])
    verdicts = judge(budget, judged_table(this), judged_table(before) if before else None, by)
    name = run.resolve().name
    if before:
        _notes(verdicts, this, before)

    if as_json:
        document = verdict.document(name, source, verdicts, str(baseline) if baseline else None)
        options.print_json(document)
    else:
        _print(verdicts)
    markdown = verdict.markdown_summary(name, source, verdicts, str(baseline) if baseline else "")
    for path in (
        write_text(junit or run / "budget.xml", verdict.junit_xml(name, verdicts)),
        write_text(summary or run / "budget.md", markdown),
    ):
        click.echo(f"written: {path}", err=True)
    _append(markdown)
    verdict.require_kept(name, verdicts)


def _measure(run: Path, devices: Sequence[Device]) -> None:
    """Measures a run on devices that its pipeline does not name."""
    if not devices:
        return
    from tfprune.quiet import start_keras

    start_keras()
    from tfprune.pipeline.on_devices import measure_run

    measure_run(run, devices)


def _budget(run: Run, file: Path | None) -> tuple[Budget, str]:
    """The budget to judge by, and where it is from."""
    from tfprune.errors import UsageError
    from tfprune.report.budgets.budget import load_budget, recorded_budget

    if file is not None:
        return load_budget(file, run.figure), str(file)
    own = recorded_budget(run)
    if own is None:
        raise UsageError(
            f"{run.directory} has no budget of its own: give --budget FILE, or add [budget] to "
            "its pipeline file and run that again"
        )
    return own, "the pipeline's own budget"


def _print(verdicts: Sequence[Verdict]) -> None:
    from tfprune.report.budgets.verdict import count_line, missing_lines, table_lines

    # `echo` leaves colours out where stdout is not a terminal.
    plain = bool(os.environ.get("NO_COLOR"))
    heading, *lines = table_lines(verdicts)
    click.echo(heading)
    for verdict, line in zip(verdicts, lines, strict=True):
        click.echo(line if plain else click.style(line, fg=_COLOURS[verdict.outcome]))
    click.echo()
    for line in missing_lines(verdicts):
        click.echo(f"missing: {line}")
    click.echo(count_line(verdicts))


def _notes(verdicts: Sequence[Verdict], run: Run, baseline: Run) -> None:
    """Says what a comparison with a baseline cannot show."""
    from tfprune.report.budgets.budget import RELATIVE

    compared = [each for each in verdicts if each.limit in RELATIVE and each.against is None]
    if not compared:
        click.echo("note: no rule compares with the baseline", err=True)
    machines = [
        each.record["sessions"][-1].get("machine") if each.record["sessions"] else None
        for each in (run, baseline)
    ]
    timed = any(each.row.source == "latency" for each in compared)
    if timed and machines[0] != machines[1]:
        click.echo(
            "note: the baseline was timed on another machine, so its latency says little: "
            'compare within the run, with against = "VARIANT"',
            err=True,
        )


def _append(markdown: str) -> None:
    from tfprune.errors import TfpruneError

    path = os.environ.get(_STEP_SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown)
    except OSError as error:
        raise TfpruneError(
            f"{path} cannot be written ({error.strerror}): set {_STEP_SUMMARY} to a file you can "
            "write to, or unset it"
        ) from error
