"""`tfprune slim`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tfprune.cli import options
from tfprune.quiet import start_keras
from tfprune.vocabulary import IMPORTANCES, listed

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfprune.data import Dataset
    from tfprune.filters import PlanDocument, RemovalPlan

# More hardly change BatchNorm's statistics.
_RECALIBRATED_BY = 2048

_TARGETS = (
    click.option(
        "--filters",
        type=options.Number(0, 1, open="low"),
        help="Keep this share of the filters; see --scope.",
    ),
    click.option(
        "--macs",
        type=options.Number(0, 1, open="low"),
        help="Keep this share of the multiply-accumulates.",
    ),
    click.option(
        "--params", type=options.Number(0, 1, open="low"), help="Keep this share of the parameters."
    ),
    click.option("--dead", is_flag=True, help="Remove just what contributes nothing."),
    click.option(
        "--latency",
        type=options.Number(0, 1, open="low"),
        help="Keep this share of TFLite's time, measured here.",
    ),
    click.option(
        "--milliseconds", type=options.POSITIVE, help="Take so long for an image, measured here."
    ),
    click.option(
        "--bytes", type=click.IntRange(1), help="Export to a file of at most so many bytes."
    ),
    click.option(
        "--scope",
        type=click.Choice(["layer", "global"]),
        default="layer",
        show_default=True,
        help="Of --filters: a share of every layer, or of all filters together.",
    ),
    click.option(
        "--importance",
        default="l2",
        show_default=True,
        metavar="NAME",
        help=f"Which filters stay: {listed(IMPORTANCES)}; taylor needs --data.",
    ),
    click.option(
        "--round-to",
        type=options.COUNT,
        default=1,
        show_default=True,
        help="Multiples to shrink to.",
    ),
    click.option(
        "--minimum",
        type=options.COUNT,
        default=1,
        show_default=True,
        help="Channels a layer keeps at least.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="LAYER",
        help="Leave a layer alone: its name, path, or a glob of these. May be given again.",
    ),
    click.option(
        "--rounds",
        type=options.COUNT,
        default=1,
        show_default=True,
        help="Approach the share in so many steps, ranking anew after each.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        default=1,
        show_default=True,
        help="Of the interpreter timed.",
    ),
    click.option(
        "--format",
        type=click.Choice(["tflite", "tflite-int8"]),
        default="tflite",
        show_default=True,
        help="Of the file whose time or size is measured.",
    ),
)


def _targets(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what goes; `tfprune.slimming.plan` takes them by the same names."""
    for each in reversed(_TARGETS):
        function = each(function)
    return function


@click.command("slim")
@click.argument("model", type=options.KERAS_FILE)
@_targets
@click.option(
    "--plan",
    "plan_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Remove what a plan says that --plan-only --json printed, in place of a target.",
)
@click.option("--plan-only", is_flag=True, help="Say what would go, and write nothing.")
@click.option(
    "--tolerance",
    type=options.Number(0, 1e9),
    default=0.0,
    show_default=True,
    help="With --dead: how far off borders may be where constants are folded.",
)
@click.option(
    "--augment",
    type=click.Choice(["flip", "crop"]),
    multiple=True,
    help="As in the training, of the images that recalibrate BatchNorm. May be given twice.",
)
@options.data(required=False, why="recalibrates BatchNorm, and ranks by taylor, on training images")
@click.option(
    "-o",
    "--output",
    callback=options.keras_name,
    type=click.Path(path_type=Path),
    help="The .keras file to write.",
)
@options.imports
@options.as_json
@click.pass_context
def slim_command(
    ctx: click.Context,
    model: Path,
    plan_file: Path | None,
    plan_only: bool,
    tolerance: float,
    augment: tuple[str, ...],
    data_name: str | None,
    data_dir: str | None,
    output: Path | None,
    as_json: bool,
    **target: Any,
) -> None:
    """Remove channels of MODEL, a .keras or .h5 file, and rebuild it smaller.

    Give one target: --filters, --macs, --params, --dead, --latency, --milliseconds, --bytes; or
    --plan. Train the result further with `tfprune train`.
    """
    target = {
        name: value
        for name, value in target.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    _check(plan_file, plan_only, output, target, data_name)
    start_keras()
    from tfprune import data
    from tfprune.model.loading import load as load_model

    original = load_model(model)
    if target.get("dead") and not plan_only:
        original = _simplified(original, tolerance)
    images = None if data_name is None else data.load(data_name, data_dir)
    plan = _plan(original, plan_file, images, target)
    _measured(plan)
    if plan_only:
        _show(plan, as_json)
    else:
        assert output is not None
        # What is dead takes no part in any statistics.
        seen = None
        if images is not None and not target.get("dead"):
            seen = data.seen(images.train, _RECALIBRATED_BY, seed=0, augment=augment)
        _write(plan, output, images, seen, as_json)


def _simplified(model: keras.Model, tolerance: float) -> keras.Model:
    from tfprune import filters

    simpler, report = filters.simplified(model, tolerance=tolerance)
    for layer in filters.removed_layers(model, simpler):
        click.echo(f"{layer} is part of a branch that adds nothing, and goes", err=True)
    for fold in report.folds:
        off = f"off by at most {fold.error:.3g} at its borders" if fold.error else "exact"
        click.echo(
            f"{len(fold.channels)} constants that {fold.layer} reads go into {fold.into}: {off}",
            err=True,
        )
    for layer, reason in report.refused.items():
        click.echo(f"constants that {layer} reads stay: {reason}", err=True)
    return simpler


def _check(
    plan_file: Path | None,
    plan_only: bool,
    output: Path | None,
    target: dict[str, Any],
    data_name: str | None,
) -> None:
    """What can be said of a call before Keras is there."""
    given = [f"--{name.replace('_', '-')}" for name in target]
    if plan_file is not None and given:
        raise click.UsageError(
            f"--plan {plan_file} says what goes: leave out {' and '.join(sorted(given))}"
        )
    if plan_only and output is not None:
        raise click.UsageError("--plan-only writes nothing: leave out -o")
    if not plan_only and output is None:
        raise click.UsageError("give the file to write, -o FILE.keras, or --plan-only")
    if target.get("importance") == "taylor" and data_name is None:
        raise click.UsageError("--importance taylor needs labelled images: give --data NAME")


def _plan(
    original: keras.Model, plan_file: Path | None, images: Dataset | None, target: dict[str, Any]
) -> RemovalPlan:
    from tfprune import filters, slimming
    from tfprune.files import read_json

    if plan_file is not None:
        return filters.read_plan(
            filters.channel_groups(original), read_json(plan_file), str(plan_file)
        )
    data = None
    if images is not None:
        data = images.train.images[: options.RANKED_BY], images.train.labels[: options.RANKED_BY]
    return slimming.plan(original, **target, data=data)


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
    plan: RemovalPlan,
    output: Path,
    images: Dataset | None,
    seen: np.ndarray | None,
    as_json: bool,
) -> None:
    from tfprune import filters
    from tfprune.artifacts import export

    slim = filters.rebuild(plan)
    if seen is not None:
        slim = filters.recalibrate(slim, seen)
    compared = None if images is None else images.validation.images
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


def _measured(plan: RemovalPlan) -> None:
    """What was measured of a plan, on stderr, if anything was."""
    from tfprune.devices import MeasuredPlan

    if isinstance(plan, MeasuredPlan):
        found = plan.measured
        times = ""
        if found.original_ms is not None and found.slim_ms is not None:
            times = f"{found.original_ms:.4g} ms to {found.slim_ms:.4g} ms, "
        click.echo(
            f"measured as {found.format}, {found.threads} threads: {times}"
            f"{found.original_bytes:,} bytes to {found.slim_bytes:,}",
            err=True,
        )


def _left(document: PlanDocument) -> str:
    """The shares that are left; a model of open sizes has no count of MACs."""
    counts = {"MACs": document.macs, "parameters": document.parameters}
    # Of none, nothing is a share.
    said = [(name, pair) for name, pair in counts.items() if pair is not None and pair[0]]
    if not said:
        return "nothing, since the model has no weights,"
    return ", ".join(f"{after / before:.1%} of the {name}" for name, (before, after) in said)
