"""`tfprune run`."""

from __future__ import annotations

from pathlib import Path

import click

from tfprune.cli import options
from tfprune.cli.start import start_keras


def _seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 0,1,2") from None


@click.command("run")
@click.argument("pipeline", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--data-dir",
    metavar="DIR",
    envvar="TFDS_DATA_DIR",
    show_envvar=True,
    help="Where tensorflow-datasets keeps its data; its own default if not given.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="The run is written to a folder in here.",
)
@click.option("--seeds", callback=_seeds, metavar="0,1,2", help="Instead of the pipeline's.")
@click.option("--only", multiple=True, metavar="VARIANT", help="Just this variant; repeatable.")
@options.as_json
def run_command(
    pipeline: Path,
    data_dir: str | None,
    out: Path,
    seeds: list[int] | None,
    only: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run PIPELINE, a TOML file: train, prune, export and measure its variants.

    What is finished already is not done again, so a run that was stopped goes on where it was.
    """
    from tfprune.pipeline import load_pipeline

    spec = load_pipeline(pipeline)

    start_keras()
    from tfprune.pipeline.runner import run
    from tfprune.report import comparison, over_seeds, read_run, render

    directory = run(
        spec,
        out=out,
        data_dir=data_dir,
        seeds=seeds,
        only=only,
        say=lambda line: click.echo(line, err=True),
        progress=True,
    )
    table = comparison(read_run(directory))
    if as_json:
        click.echo(render(table, "json"), nl=False)
        return
    click.echo(render(over_seeds(table)), nl=False)
    click.echo(f"\nreport: {directory / 'report.md'}")
