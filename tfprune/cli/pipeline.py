"""`tfprune run`, `tfprune pipeline` for the files that it runs, and `tfprune runs`."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options
from tfprune.tasks.spec import KINDS as TASKS
from tfprune.vocabulary import DELIVERIES, DeliveryName

if TYPE_CHECKING:
    import pandas as pd

    from tfprune.pipeline.executors import Execution

# Of very many variants the first are enough to see what was meant.
_NAMED = 100
_FILE = click.Path(path_type=Path, dir_okay=False)
_settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the file: data.limit=100, dense.epochs=3 (a step), "
    "train.epochs=3 (all steps of a kind); repeatable.",
)


@click.command("run")
@click.argument("pipeline", type=_FILE)
@options.data_dir
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="The run is written to a folder in here.",
)
@click.option(
    "--seeds", callback=options.seed_list, metavar="0,1,2", help="Instead of the pipeline's."
)
@click.option("--only", multiple=True, metavar="VARIANT", help="Just this variant; repeatable.")
@_settings
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show the steps, which of them are done, and about what time and disk they take.",
)
@options.execution
@options.imports
@options.as_json
def run_command(
    pipeline: Path,
    data_dir: str | None,
    out: Path,
    seeds: list[int] | None,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    dry_run: bool,
    execution: Execution,
    store: str | None,
    as_json: bool,
) -> None:
    """Run PIPELINE, a TOML file: train, prune, export and measure its variants.

    What is finished already is not done again, so a run that was stopped goes on where it was.
    """
    from tfprune.files import check_folder
    from tfprune.pipeline import load_pipeline
    from tfprune.pipeline.runner import forecast, run
    from tfprune.report import over_seeds, planned, read_run, render
    from tfprune.report.devices import device_summary, device_table

    spec = load_pipeline(pipeline, settings)

    def say(line: str) -> None:
        click.echo(line, err=True)

    if dry_run:
        table = forecast(
            spec, out=out, data_dir=data_dir, seeds=seeds, only=only, say=say, store=store
        )
        click.echo(render(table, "json") if as_json else _forecast(table), nl=False)
        return
    check_folder(out)
    directory = run(
        spec,
        out=out,
        data_dir=data_dir,
        seeds=seeds,
        only=only,
        say=say,
        progress=True,
        execution=execution,
        store=store,
    )
    this = read_run(directory)
    options.print_missing([this])
    table = planned(this)
    if as_json:
        click.echo(render(table, "json"), nl=False)
        return
    click.echo(render(over_seeds(table, this.figure), by=this.figure), nl=False)
    told = device_table(this)
    if len(told):
        click.echo(f"\n{render(device_summary(told))}", nl=False)
    click.echo(f"\nreport: {directory / 'report.html'}")
    click.echo(f"try it: tfprune app {shlex.quote(str(directory))}")


def _forecast(table: pd.DataFrame) -> str:
    from datetime import timedelta

    from tfprune.pipeline.forecast import DONE, FETCHED
    from tfprune.report import render

    def clock(seconds: float) -> str:
        return str(timedelta(seconds=round(seconds)))

    left = ~table["state"].isin([DONE, FETCHED])
    shown = table[["task", "state"]].assign(
        time=table["seconds"].map(clock).where(left, ""),
        disk=table["bytes"]
        .map(lambda size: f"{size / 2**20:.1f} MiB")
        .where(table["state"] != DONE, ""),
    )
    text = f"{render(shown)}\n{left.sum()} of {len(table)} to do"
    if left.any():
        size = table["bytes"].sum() / 2**20
        text += f": about {clock(table['seconds'].sum())} on this machine, {size:.1f} MiB of disk"
    return f"{text}\n"


@click.group("pipeline")
def pipeline_command() -> None:
    """Check and begin pipeline files."""


@pipeline_command.command("check")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@options.data_dir
@_settings
@options.imports
def check(files: tuple[Path, ...], data_dir: str | None, settings: tuple[str, ...]) -> None:
    """Check FILES without running them: every key, name, value and chain of steps.

    Also that the data set is known, and that files and packages they need are there.
    """
    from tfprune.errors import TfpruneError
    from tfprune.pipeline import load_pipeline
    from tfprune.pipeline.inputs import check_budget, check_requirements

    for file in files:
        spec = load_pipeline(file, settings)
        try:
            check_budget(spec)
            check_requirements(spec, data_dir)
        except TfpruneError as error:
            raise type(error)(f"{file}: {error}") from error
        click.echo(
            f"{file}: {spec.model.name} on {spec.data.name}, {len(spec.variants)} variants "
            f"({_some(spec.variants)}), seeds {_some(spec.seeds)}"
        )
        unused = set(spec.steps).difference(*(chain.parts for chain in spec.variants.values()))
        if unused:
            click.echo(f"note: {file}: no variant has the steps {_some(sorted(unused))}", err=True)


def _some(names: Collection[Any]) -> str:
    """Names in a line, the first of very many."""
    shown = ", ".join(str(name) for name in itertools.islice(names, _NAMED))
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


@pipeline_command.command("schema")
@options.imports
def schema() -> None:
    """Print the JSON Schema of pipeline files, with which editors complete and check them."""
    from tfprune.pipeline import json_schema

    options.print_json(json_schema())


@pipeline_command.command("new")
@click.argument("file", type=_FILE)
@click.option(
    "--data",
    "data_name",
    metavar="NAME|FOLDER|FILE",
    help="What to train on; see `tfprune train`. [default: digits]",
)
@click.option(
    "--model",
    metavar="MODEL",
    help="A net of the zoo or keras.applications, FILE.py:FUNCTION, or a file. [default: vgg]",
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What the model is trained for. [default: as it is compiled, else a classification]",
)
@click.option(
    "--made-for",
    type=click.Choice(list(DELIVERIES)),
    help="What it is made for, which chooses the formats. [default: the formats of README]",
)
def new(
    file: Path,
    data_name: str | None,
    model: str | None,
    task: str | None,
    made_for: DeliveryName | None,
) -> None:
    """Write FILE, a pipeline to begin with: dense, weight pruning, filter pruning.

    FILE may not exist yet. In a terminal, what is not given is asked for.
    """
    from tfprune.pipeline import new_pipeline

    if _asks():
        if data_name is None:
            data_name = click.prompt("data: a name, a folder, a file", default="digits")
        if model is None:
            model = click.prompt("model: a net, FILE.py:FUNCTION, a file", default="vgg")
        if task is None:
            task = click.prompt("task", default="classification", type=click.Choice(TASKS))
        if made_for is None:
            made_for = click.prompt(
                "made for", default="server", type=click.Choice(list(DELIVERIES))
            )
    path = new_pipeline(
        file, data=data_name or "digits", model=model or "vgg", task=task, made_for=made_for
    )
    click.echo(f"{path}: run it with `tfprune run {path}`")


def _asks() -> bool:
    """Whether a person is there to be asked."""
    return sys.stdin.isatty()


_runs_in = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="Where the runs lie.",
)


@click.group("runs", invoke_without_command=True)
@_runs_in
@options.as_json
@click.pass_context
def runs_command(ctx: click.Context, out: Path, as_json: bool) -> None:
    """List the runs in a directory, or free what they do not need."""
    if ctx.invoked_subcommand is not None:
        return
    from tfprune.pipeline.runs import list_runs
    from tfprune.report import render

    table = list_runs(out)
    for line in table["note"]:
        if line and not as_json:
            click.echo(line, err=True)
    if as_json:
        click.echo(render(table, "json"), nl=False)
    elif table.empty:
        click.echo(f"no runs in {out}", err=True)
    else:
        click.echo(render(table.drop(columns="note")), nl=False)


@runs_command.command("gc")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path, file_okay=False))
@_runs_in
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@options.as_json
def gc(runs: tuple[Path, ...], out: Path, dry_run: bool, as_json: bool) -> None:
    """Free what nothing refers to in RUNS, by default all of them.

    Delivered variants and the steps they were made by stay; so does what the pipeline, as it was
    last run, has finished or begun.
    """
    from tfprune.pipeline.runs import collect, run_folders

    directories = list(runs) or run_folders(out)
    # All are looked at before anything of any goes: one that is damaged stops it.
    found = [each for run in directories for each in collect(run, delete=False)]
    if not dry_run:
        found = [each for run in directories for each in collect(run, delete=True)]
    if as_json:
        options.print_json([{"path": str(each.path), "bytes": each.bytes} for each in found])
        return
    for each in found:
        click.echo(f"{each.path}: {each.bytes:,} bytes")
    total = sum(each.bytes for each in found)
    click.echo(f"{total:,} bytes {'to free' if dry_run else 'freed'}")
