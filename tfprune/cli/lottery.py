"""`tfprune lottery`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options, step_options
from tfprune.model.reference import find_model
from tfprune.pipeline.steps.weights import PruneOnceStep
from tfprune.training import Training

if TYPE_CHECKING:
    from tfprune.pipeline.spec import DataSpec
    from tfprune.tasks import TaskSpec


def _run_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise click.BadParameter(
            f"{value!r} is not a name of a run: use A-Z, a-z, 0-9, dots, hyphens and underscores, "
            "and begin with a letter or a digit"
        )
    return value


@click.command("lottery")
@click.argument("model", metavar="MODEL")
@options.data(required=True, why="what to train on, and to test tickets with")
@options.model_option
@options.task
@click.option(
    "--limit",
    type=options.COUNT,
    metavar="N",
    help="Use at most so many images of each split, to try out.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Levels of pruning.",
)
@step_options.option(PruneOnceStep, "share", default=0.2)
@step_options.option(PruneOnceStep, "layers", "--layer-share")
@step_options.from_table(PruneOnceStep, leave_out=("share", "layers"))
@click.option(
    "--rewind",
    default="init",
    show_default=True,
    metavar="init|EPOCH|lr|finetune",
    help="Where a round begins: at the initial weights, at those after an epoch of the dense "
    "training, or where the last round ended, with its learning rate from the start or low.",
)
@click.option(
    "--one-shot", is_flag=True, help="Prune once, to the density that all rounds would reach."
)
@click.option(
    "--controls", is_flag=True, help="Also train each ticket's masks, and random ones, drawn anew."
)
@click.option(
    "--seeds",
    callback=options.seed_list,
    default="0",
    show_default=True,
    metavar="0,1,2",
    help="A lottery for each.",
)
@step_options.from_table(Training, epochs=10, learning_rate=0.1)
@options.runs_folder
@click.option(
    "--name",
    metavar="NAME",
    callback=_run_name,
    help="Of the run and its folder; lottery-MODEL if not given.",
)
@options.imports
@options.as_json
def lottery_command(
    model: str,
    data: DataSpec,
    data_dir: str | None,
    option: dict[str, Any],
    task: TaskSpec | None,
    limit: int | None,
    rounds: int,
    rewind: str,
    one_shot: bool,
    controls: bool,
    seeds: list[int],
    out: Path,
    name: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Draw lottery tickets of MODEL: train, prune a share, rewind, again.

    MODEL is a net of the zoo or of keras.applications, FILE.py:FUNCTION, or, with --rewind lr or
    finetune, a .keras file. The run is a pipeline's: one that was stopped goes on where it was,
    and more rounds or seeds go on from there.
    """
    find_model(model, option).check_files()
    from tfprune.pipeline.authoring import lottery_study
    from tfprune.pipeline.runner import run
    from tfprune.report import read_run, render, tickets, tickets_over_seeds, tickets_with_units

    study = lottery_study(
        # A run's folder has a plain name, whatever the file is called.
        name or re.sub("[^A-Za-z0-9._]+", "-", f"lottery-{Path(model).stem}").rstrip("-"),
        model={"name": model, "options": option},
        data={**data.model_dump(), "limit": limit},
        training={name: given[name] for name in Training.model_fields},
        pruning={name: given[name] for name in PruneOnceStep.model_fields if name in given},
        rounds=rounds,
        rewind=rewind,
        one_shot=one_shot,
        controls=controls,
        seeds=seeds,
        task=task,
    )
    directory = run(
        study,
        out=out,
        data_dir=data_dir,
        say=lambda line: click.echo(line, err=True),
        progress=True,
    )
    drawn = read_run(directory)
    table = tickets(drawn)
    if as_json:
        click.echo(render(table, "json"), nl=False)
        return
    over = tickets_over_seeds(table, drawn.figure)
    click.echo(render(tickets_with_units(over, drawn.figure)), nl=False)
    click.echo(f"\npicture: {directory / 'tickets.svg'}\nreport: {directory / 'report.html'}")
