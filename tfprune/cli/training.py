"""`tfprune train`, `tfprune prune` and `tfprune learn`: what trains a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options
from tfprune.quiet import start_keras

if TYPE_CHECKING:
    from tfprune.data import Dataset


def _fitted(
    step: str,
    given: dict[str, Any],
    model: Any,
    dataset: Dataset,
    output: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Does one step of a pipeline on a model, and writes what comes out."""
    from tempfile import TemporaryDirectory

    from pydantic import TypeAdapter, ValidationError

    from tfprune.artifacts import export
    from tfprune.errors import UsageError
    from tfprune.measure.keras_runtime import read_keras
    from tfprune.pipeline.kinds import Step
    from tfprune.pipeline.steps import Bench, perform

    given = {name: value for name, value in given.items() if value is not None}
    if "teacher" in given:
        # A pipeline's teacher is a step; here it is a file.
        given["teacher"] = str(given["teacher"])
    try:
        specification = TypeAdapter(Step).validate_python({"kind": step, **given})
    except ValidationError as error:
        first = error.errors()[0]
        if not isinstance(first["loc"][-1], str) or first["loc"][-1] not in given:
            said = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"tfprune {step}: {said}") from error
        name = first["loc"][-1].replace("_", "-")
        raise UsageError(f"--{name} {first['input']}: {first['msg']}") from error
    with TemporaryDirectory() as scratch:
        bench = Bench(
            dataset,
            seed,
            Path(scratch),
            output.stem,
            earlier=lambda teacher: read_keras(Path(teacher)),
        )
        model, record = perform(specification, model, bench)
    export(model, output.parent, ["keras"], name=output.stem)
    if as_json:
        click.echo(json.dumps({"output": str(output), **record}, indent=2))
        return
    accuracy = record["history"]["val_accuracy"][-1]
    click.echo(f"{output}: validation accuracy {accuracy:.2%}")


@click.command("train")
@click.argument("model", metavar="MODEL")
@options.data(required=True, why="what to train on")
@options.zoo_option
@options.training(epochs=10, learning_rate=0.1)
@options.output
@options.as_json
def train_command(
    model: str,
    data_name: str,
    data_dir: str | None,
    option: dict[str, Any],
    output: Path,
    seed: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Train MODEL: a net of the zoo or keras.applications by name, or a .keras file further."""
    from tfprune import zoo

    if not model.endswith(".keras"):
        zoo.check(model, option)
    start_keras()
    from tfprune.data import load
    from tfprune.measure.keras_runtime import read_keras
    from tfprune.pipeline.spec import ModelSpec
    from tfprune.pipeline.steps import build

    dataset = load(data_name, data_dir, seed=seed)
    if model.endswith(".keras"):
        start = read_keras(Path(model))
    else:
        start = build(ModelSpec(name=model, options=option), dataset, seed)
    _fitted("train", given, start, dataset, output, seed, as_json)


@click.command("prune")
@click.argument("model", type=options.KERAS_FILE)
@options.data(required=True, why="what to train on while pruning")
@click.option("--sparsity", type=float, default=0.8, show_default=True, help="0 to 1.")
@click.option("--scope", type=click.Choice(["layer", "global"]), default="layer", show_default=True)
@options.course
@options.frequency(
    None,
    "Steps between two cuts. [default: 100, or a twentieth of the way from --begin to --end where "
    "that is less]",
)
@options.training(epochs=5, learning_rate=0.02)
@options.output
@options.as_json
def prune_command(**given: Any) -> None:
    """Make the weights of MODEL, a .keras file, sparse while it trains on.

    The sparsity follows tfmot's PolynomialDecay from --begin to --end of the training.
    """
    _further("prune", **given)


@click.command("learn")
@click.argument("model", type=options.KERAS_FILE)
@options.data(required=True, why="what to train on while learning")
@click.option("--macs", type=float, help="Keep this share of the multiply-accumulates.")
@click.option("--params", type=float, help="Keep this share of the parameters.")
@click.option("--filters", type=float, help="Keep this share of the filters.")
@click.option(
    "--strength", type=float, help="Of the group lasso, on all filters: beside a target, or alone."
)
@click.option(
    "--groups",
    type=click.Choice(["filter", "depth"]),
    default="filter",
    show_default=True,
    help="What becomes zero: filters, or whole residual branches.",
)
@options.course
@options.frequency(100, "Steps between two plans.")
@options.training(epochs=10, learning_rate=0.05)
@options.output
@options.as_json
def learn_command(**given: Any) -> None:
    """Train MODEL, a .keras file, until whole filters are zero.

    Give one of --macs, --params and --filters, or a --strength. Then `tfprune slim --dead` removes
    what became zero, and changes no output.
    """
    _further("learn", **given)


def _further(
    step: str,
    *,
    model: Path,
    data_name: str,
    data_dir: str | None,
    output: Path,
    seed: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Does one step on a model that is a file."""
    start_keras()
    from tfprune.data import load
    from tfprune.measure.keras_runtime import read_keras

    start = read_keras(model)
    dataset = load(data_name, data_dir, seed=seed)
    _fitted(step, given, start, dataset, output, seed, as_json)
