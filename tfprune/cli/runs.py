"""`tfprune runs`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tfprune.cli import options

_out = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="Where the runs lie.",
)


@click.group("runs", invoke_without_command=True)
@_out
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
@_out
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
        click.echo(
            json.dumps([{"path": str(each.path), "bytes": each.bytes} for each in found], indent=2)
        )
        return
    for each in found:
        click.echo(f"{each.path}: {each.bytes:,} bytes")
    total = sum(each.bytes for each in found)
    click.echo(f"{total:,} bytes {'to free' if dry_run else 'freed'}")
