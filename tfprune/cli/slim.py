"""`tfprune slim`: the step `slim` on a model in a file, and plans that are printed and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tfprune.cli import options, step_options
from tfprune.pipeline.steps import Context
from tfprune.pipeline.steps.filters import (
    RECALIBRATION_IMAGES,
    SlimPlan,
    SlimStep,
    recalibrate_model,
)
from tfprune.quiet import start_keras

if TYPE_CHECKING:
    import keras

    from tfprune.devices import Measured
    from tfprune.filters import PlanDocument, RemovalPlan
    from tfprune.pipeline.spec import DataSpec, ModelSpec
    from tfprune.tasks import TaskSpec

# The fields that do not say what goes: they may stand beside --plan.
_AFTERWARDS = ("tolerance", "recalibrate", "augment")


@click.command("slim")
@options.model
@step_options.from_table(SlimStep, leave_out=("device_options",))
@options.device_option
@click.option(
    "--plan",
    "plan_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Remove what a plan says that --plan-only --json printed, in place of a target.",
)
@click.option("--plan-only", is_flag=True, help="Say what would go, and write nothing.")
@options.data(required=False, why="recalibrates BatchNorm, and ranks by taylor, on training images")
@click.option(
    "-o",
    "--output",
    callback=options.keras_name,
    type=click.Path(path_type=Path),
    help="The .keras file to write.",
)
@options.task
@options.imports
@options.as_json
@click.pass_context
def slim_command(
    ctx: click.Context,
    model: ModelSpec,
    plan_file: Path | None,
    plan_only: bool,
    data: DataSpec | None,
    data_dir: str | None,
    task: TaskSpec | None,
    output: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove channels of MODEL, mostly a .keras file, and rebuild it smaller.

    Give one target: --filters, --macs, --params, --dead, --latency, --milliseconds, --bytes; with
    --device also --cycles, --sram, --flash; or --plan. Train the result further with
    `tfprune train`.
    """
    target = [
        name
        for name in given
        if name not in _AFTERWARDS and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    _check(plan_file, plan_only, output, target)
    step = None if plan_file is not None else _read(given, data)
    start_keras()
    from tfprune import filters
    from tfprune.files import read_json
    from tfprune.pipeline.execution import model_with_data

    original, dataset = model_with_data(model, data, data_dir, task=task)
    options.tell(dataset)
    context = Context(dataset, 0, Path())
    if plan_file is not None:
        groups = filters.channel_groups(original)
        plan = SlimPlan(original, filters.read_plan(groups, read_json(plan_file), str(plan_file)))
        count = given["recalibrate"]
        count = RECALIBRATION_IMAGES if count is None else count
    else:
        assert step is not None
        plan = step.plan(original, context, simplify=not plan_only)
        count = step.recalibration_images
    _tell_simplification(original, plan)
    _tell_measured(plan.removal)
    if plan_only:
        _show(plan.removal, as_json)
        return
    assert output is not None
    slim = recalibrate_model(filters.rebuild(plan.removal), context, count, given["augment"])
    _write(plan.removal, slim, output, context, as_json)


def _read(given: dict[str, Any], data: DataSpec | None) -> SlimStep:
    step = step_options.read_step("slim", given)
    assert isinstance(step, SlimStep)
    if data is None and (need := step.needs_images):
        raise click.UsageError(f"--{need} needs labelled examples: give --data NAME")
    step.check_installed()
    return step


def _tell_simplification(original: keras.Model, plan: SlimPlan) -> None:
    from tfprune import filters

    if plan.report is None:
        return
    for layer in filters.removed_layers(original, plan.model):
        click.echo(f"{layer} is part of a branch that adds nothing, and goes", err=True)
    for fold in plan.report.folds:
        off = f"off by at most {fold.error:.3g} at its borders" if fold.error else "exact"
        click.echo(
            f"{len(fold.channels)} constants that {fold.layer} reads go into {fold.into}: {off}",
            err=True,
        )
    for layer, reason in plan.report.refused.items():
        click.echo(f"constants that {layer} reads stay: {reason}", err=True)


def _check(plan_file: Path | None, plan_only: bool, output: Path | None, target: list[str]) -> None:
    """Refuses options that contradict each other."""
    given = [f"--{name.replace('_', '-')}" for name in target]
    if plan_file is not None and given:
        raise click.UsageError(
            f"--plan {plan_file} says what goes: leave out {' and '.join(sorted(given))}"
        )
    if plan_only and output is not None:
        raise click.UsageError("--plan-only writes nothing: leave out -o")
    if not plan_only and output is None:
        raise click.UsageError("give the file to write, -o FILE.keras, or --plan-only")


def _show(plan: RemovalPlan, as_json: bool) -> None:
    import pandas as pd

    from tfprune.filters import plan_document
    from tfprune.report import render

    document = plan_document(plan)
    if as_json:
        click.echo(document.model_dump_json(indent=2))
        return
    table = pd.DataFrame({"channels": document.channels, "kept": document.kept})
    click.echo(render(table.rename_axis("layer").reset_index()))
    _warn(document)
    click.echo(f"{_left(document)} would be left")


def _write(
    plan: RemovalPlan, slim: keras.Model, output: Path, context: Context, as_json: bool
) -> None:
    from tfprune import filters
    from tfprune.artifacts import export
    from tfprune.artifacts.examples import COMPARED_IMAGES

    compared = None
    if context.dataset is not None:
        compared = context.dataset.validation.sample(COMPARED_IMAGES).inputs
    export(slim, output.parent, ["keras"], compared, name=output.stem)
    document = _counted(filters.plan_document(plan), slim)
    if as_json:
        click.echo(document.model_dump_json(indent=2))
        return
    _warn(document)
    click.echo(f"{options.shown(output)}: {_left(document)}")


def _counted(document: PlanDocument, slim: keras.Model) -> PlanDocument:
    """The document with the figures of the model that was made, in place of those planned."""
    from tfprune import macs

    figures = {"parameters": [document.parameters[0], slim.count_params()]}
    if document.macs is not None:
        figures["macs"] = [document.macs[0], macs(slim)]
    return document.model_copy(update=figures)


def _warn(document: PlanDocument) -> None:
    for layer, reason in document.inexact.items():
        click.echo(f"inexact at {layer}: {reason}", err=True)


def _tell_measured(plan: RemovalPlan) -> None:
    """Prints what was measured of a plan on stderr, if anything was."""
    from tfprune.devices import MeasuredPlan

    if isinstance(plan, MeasuredPlan):
        found = plan.measured
        if found.device:
            _tell_estimated(found)
            return
        times = ""
        if found.original_ms is not None and found.slim_ms is not None:
            times = f"{found.original_ms:.4g} ms to {found.slim_ms:.4g} ms, "
        click.echo(
            f"measured as {found.format}, {found.threads} threads: {times}"
            f"{found.original_bytes:,} bytes to {found.slim_bytes:,}",
            err=True,
        )


def _tell_estimated(found: Measured) -> None:
    """Prints what the compiler of a device told on stderr."""
    from tfprune.devices.measuring import device_heading
    from tfprune.figures import figure

    told = []
    for name, value in found.slim.items():
        row = figure(name)
        told.append(f"{row.title} {row.text(found.original[name])} to {row.text(value)}")
    click.echo(f"{device_heading(found.device, estimated=True)}: {', '.join(told)}", err=True)
    for note in found.notes:
        click.echo(f"{found.device}: {note}", err=True)


def _left(document: PlanDocument) -> str:
    """The shares that are left; a model of open sizes has no count of MACs."""
    counts = {"MACs": document.macs, "parameters": document.parameters}
    # Of none, nothing is a share.
    said = [(name, pair) for name, pair in counts.items() if pair is not None and pair[0]]
    if not said:
        return "nothing, since the model has no weights,"
    return ", ".join(f"{after / before:.1%} of the {name}" for name, (before, after) in said)
