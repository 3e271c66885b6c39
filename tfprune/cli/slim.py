"""`tfprune slim`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tfprune.cli import options
from tfprune.quiet import start_keras


@click.command("slim")
@click.argument("model", type=options.KERAS_FILE)
@click.option("--filters", type=float, help="Keep this share of every layer's filters.")
@click.option("--macs", type=float, help="Keep this share of the multiply-accumulates.")
@click.option("--params", type=float, help="Keep this share of the parameters.")
@click.option("--dead", is_flag=True, help="Remove just what contributes nothing.")
@click.option("--importance", default="l2", show_default=True, help="l1, l2, lasso or random.")
@click.option("--round-to", type=int, default=1, show_default=True, help="Multiples to shrink to.")
@options.data(required=False, why="recalibrates BatchNorm on training images")
@options.output
@options.as_json
def slim_command(
    model: Path,
    data_name: str | None,
    data_dir: str | None,
    output: Path,
    as_json: bool,
    **target: Any,
) -> None:
    """Remove channels of MODEL, a .keras file, and rebuild it smaller.

    Give one of --filters, --macs, --params and --dead. Train the result further with
    `tfprune train`.
    """
    start_keras()
    from tfprune import filters, macs
    from tfprune.artifacts import export
    from tfprune.data import load
    from tfprune.measure.keras_runtime import read_keras

    original = read_keras(model)
    plan = filters.plan(original, **target)
    slim = filters.rebuild(plan)
    if data_name is not None:
        slim = filters.recalibrated(slim, load(data_name, data_dir).train.images[:2048])
    export(slim, output.parent, ["keras"], name=output.stem)
    if as_json:
        document = {
            "macs": [macs(original), macs(slim)],
            "parameters": [original.count_params(), slim.count_params()],
            "removed": plan.removed,
            "inexact": plan.inexact,
        }
        click.echo(json.dumps(document, indent=2))
        return
    for layer, reason in plan.inexact.items():
        click.echo(f"inexact at {layer}: {reason}", err=True)
    click.echo(
        f"{output}: {macs(slim) / macs(original):.1%} of the MACs, "
        f"{slim.count_params() / original.count_params():.1%} of the parameters"
    )
