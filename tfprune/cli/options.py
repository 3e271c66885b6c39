"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

KERAS_FILE = click.Path(path_type=Path, dir_okay=False)


# Labelled training images that an importance may look at: more hardly change a ranking.
RANKED_BY = 512


def keras_name(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Wants a `.keras` file, where one is given."""
    if value is not None and value.suffix != ".keras":
        raise click.BadParameter(f"{value} does not end in .keras")
    return value


output = click.option(
    "-o",
    "--output",
    required=True,
    callback=keras_name,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The .keras file to write.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
data_dir = click.option(
    "--data-dir",
    metavar="DIR",
    envvar="TFDS_DATA_DIR",
    show_envvar=True,
    help="Where tensorflow-datasets keeps its data; its own default if not given.",
)


def data(required: bool, why: str) -> Decorator:
    """`--data` and where it lies.

    Args:
        required: whether the command needs images.
        why: what it does with them, for the help.
    """
    return _all(
        click.option(
            "--data",
            "data_name",
            required=required,
            metavar="NAME",
            help=f"A tensorflow-datasets name, or `digits`, which is built in: {why}.",
        ),
        data_dir,
    )


def seed_list(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    """Reads `0,1,2`."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 0,1,2") from None


def assignments(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Reads `width=16`, each as it would stand in a pipeline file."""
    import tomllib

    found: dict[str, Any] = {}
    for value in values:
        try:
            found.update(tomllib.loads(value))
        except tomllib.TOMLDecodeError:
            raise click.BadParameter(f"{value!r} is not of the form width=16") from None
    return found


def training(epochs: int, learning_rate: float) -> Decorator:
    """The options of one training, its teacher and its seed.

    Args:
        epochs: the default of `--epochs`.
        learning_rate: the default of `--learning-rate`.
    """
    return _all(
        plain_training(epochs, learning_rate),
        click.option(
            "--distill",
            "teacher",
            type=KERAS_FILE,
            metavar="TEACHER.keras",
            help="Learn from this model's outputs as well, such as the dense model's.",
        ),
        click.option(
            "--teacher-weight",
            type=float,
            default=0.5,
            show_default=True,
            help="The teacher's part in the loss, 0 to 1.",
        ),
        click.option(
            "--temperature",
            type=float,
            default=4.0,
            show_default=True,
            help="Divides the logits of both.",
        ),
        click.option("--seed", type=int, default=0, show_default=True),
    )


def plain_training(epochs: int, learning_rate: float) -> Decorator:
    """The options of one training; see `tfprune.training.Training`.

    Args:
        epochs: the default of `--epochs`.
        learning_rate: the default of `--learning-rate`.
    """
    return _all(
        click.option("--epochs", type=int, default=epochs, show_default=True),
        click.option("--batch-size", type=int, default=128, show_default=True),
        click.option(
            "--optimizer",
            type=click.Choice(["sgd", "adam", "adamw"]),
            default="sgd",
            show_default=True,
        ),
        click.option(
            "--learning-rate", type=float, default=learning_rate, show_default=True, help="Peak."
        ),
        click.option(
            "--schedule",
            type=click.Choice(["cosine", "constant", "step"]),
            default="cosine",
            show_default=True,
            help="Of the learning rate.",
        ),
        click.option("--weight-decay", type=float, default=0.0, show_default=True),
        click.option(
            "--augment",
            type=click.Choice(["flip", "crop"]),
            multiple=True,
            help="May be given twice.",
        ),
    )


def _all(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(decorators):
            function = each(function)
        return function

    return decorate


zoo_option = click.option(
    "--option",
    multiple=True,
    callback=assignments,
    metavar="KEY=VALUE",
    help="Of a zoo model.",
)
course = _all(
    click.option(
        "--begin", type=float, default=0.0, show_default=True, help="Share of the training."
    ),
    click.option(
        "--end", type=float, default=0.5, show_default=True, help="Share of the training."
    ),
)
"""When a target is approached while a model trains."""


def frequency(default: int | None, help: str) -> Callable[..., Any]:
    """How many steps apart the changes are on the way to a target."""
    return click.option(
        "--frequency", type=int, default=default, show_default=default is not None, help=help
    )
