"""`tfprune search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options
from tfprune.errors import TfpruneError

if TYPE_CHECKING:
    import pandas as pd

    from tfprune.pipeline.executors import Execution
    from tfprune.pipeline.spec import DataSpec
    from tfprune.searching import Found
    from tfprune.tasks import TaskSpec


@click.command("search")
@click.argument("model", metavar="MODEL|FILE.toml")
@options.data(required=False, why="what to train on, to judge by, and to test the winner with")
@options.model_option
@options.task
@click.option(
    "--limit", type=options.COUNT, metavar="N", help="Use at most so many examples of each split."
)
@click.option(
    "--device",
    metavar="NAME",
    help="Where the artifact is meant to run; see `tfprune measure --device`. [default: cpu]",
)
@click.option(
    "--device-option",
    "device_options",
    multiple=True,
    callback=options.assignments,
    metavar="KEY=VALUE",
    help="An option of the device, such as threads=2; repeatable.",
)
@click.option(
    "--minimize",
    metavar="COST",
    help="latency, macs, parameters, bytes, bytes_gzip, or what the device tells. "
    "[default: latency]",
)
@click.option(
    "--max-drop",
    type=options.NumberRange(0, 10**9),
    metavar="DROP",
    help="How much worse than the dense model it may be on validation data: in points where the "
    "figure is a share (0.5 is from 92.0% to 91.5%), else in its unit. [default: 0.5]",
)
@click.option(
    "--max-ratio",
    type=options.NumberRange(0, 10**9, "low"),
    metavar="RATIO",
    help="The most it may cost, divided by the dense model's cost: 0.5 for half. [default: any]",
)
@click.option(
    "--epochs", type=options.COUNT, metavar="N", help="Of the dense training, of a new model."
)
@click.option(
    "--recovery",
    type=options.COUNT,
    metavar="N",
    help="The most epochs that a trial trains on. [default: 8]",
)
@click.option(
    "--training",
    "training_options",
    multiple=True,
    callback=options.assignments,
    metavar="KEY=VALUE",
    help="A key of [training], such as learning_rate=0.05 or batch_size=64; repeatable.",
)
@click.option("--trials", type=options.COUNT, metavar="N", help="At most so many. [default: 24]")
@click.option(
    "--minutes",
    type=options.NumberRange(0, 10**6, "low"),
    metavar="N",
    help="Begin nothing that does not fit into so many minutes. [default: no limit]",
)
@click.option("--seed", type=options.SEED, metavar="N", help="[default: 0]")
@click.option("--name", metavar="NAME", help="Of the run and its folder. [default: search]")
@options.runs_folder
@options.execution
@options.imports
@options.as_json
def search_command(
    model: str,
    data: DataSpec | None,
    data_dir: str | None,
    option: dict[str, Any],
    task: TaskSpec | None,
    limit: int | None,
    device: str | None,
    device_options: dict[str, Any],
    training_options: dict[str, Any],
    out: Path,
    execution: Execution,
    store: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Search for the cheapest artifact of MODEL that is no worse than the budget allows.

    MODEL is a net of the zoo or of keras.applications, FILE.py:FUNCTION, or a trained .keras file.
    FILE.toml holds the same and more (docs/search.md); options replace its keys. A search that
    was stopped goes on where it was. Exit code 1 says that the budget was not met.
    """
    from tfprune.report import over_seeds, render
    from tfprune.searching import load_search, search

    def say(line: str) -> None:
        click.echo(line, err=True)

    keys: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    path = Path(model) if model.endswith(".toml") else None
    if path is None:
        keys["model"] = {"name": model, "options": option}
        if data is None:
            raise click.UsageError("MODEL needs data: give --data")
    elif option:
        raise click.UsageError("--option is for a MODEL: write model.options in the file")
    if data is not None:
        keys["data"] = {**data.model_dump(exclude_defaults=True), "limit": limit}
    elif limit is not None:
        raise click.UsageError("--limit is for --data: write data.limit in the file")
    if device is not None:
        keys["device"] = {"name": device, **device_options}
    elif device_options:
        raise click.UsageError("--device-option is for a device: give --device")
    if training_options:
        keys["training"] = training_options
    if task is not None:
        keys["task"] = task
    found = search(
        load_search(path, **keys),
        out=out,
        data_dir=data_dir,
        execution=execution,
        store=store,
        say=say,
        progress=True,
    )
    if as_json:
        options.print_json(
            {
                "directory": str(found.directory),
                "pipeline": str(found.pipeline),
                "files": [str(each) for each in found.files],
                "said": found.said,
                "is_met": found.is_met,
                "winner": found.winner.to_dict(),
                "tried": [each.to_dict() for each in found.tried],
            }
        )
    else:
        click.echo(f"validation, {found.figure.noun} against {found.search.cost.noun}:")
        click.echo(render(_for_people(found)), nl=False)
        click.echo("\ntest, the dense model and the winner:")
        table = over_seeds(found.test, found.figure)
        click.echo(render(table, by=found.figure), nl=False)
        click.echo(f"\nreport: {found.directory / 'report.html'}")
        click.echo(f"again: tfprune run {found.pipeline}")
        for file in found.files:
            click.echo(f"winner: {file}")
    if not found.is_met:
        raise TfpruneError(found.said)
    click.echo(found.said, err=True)


def _for_people(found: Found) -> pd.DataFrame:
    """The front with units."""
    table = found.front_table()
    cost = found.search.cost
    points = " points" if found.figure.is_share else found.figure.number.unit
    return table.assign(
        **{
            found.figure.name: table[found.figure.name].map(found.figure.text),
            "drop": table["drop"].map(lambda value: f"{value:.2f}{points}"),
            "ratio": table["ratio"].map(lambda value: f"{value:.3f}"),
            cost.name: table[cost.name].map(cost.text),
        }
    )
