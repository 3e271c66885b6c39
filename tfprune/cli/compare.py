"""`tfprune compare`."""

from __future__ import annotations

from pathlib import Path

import click

from tfprune.cli import options


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
    help="csv and json keep every digit and every seed.",
)
@click.option("--layers", is_flag=True, help="Only the table of sparsity per layer.")
def compare_command(runs: tuple[Path, ...], form: str, layers: bool) -> None:
    """Compare the artifacts of RUNS, directories such as saved_models/digits.

    Prints one row a variant and artifact, then the sparsity of every layer. csv and json print
    the first table only, or with --layers the second.
    """
    import pandas as pd

    from tfprune.report import (
        layer_sparsity,
        over_seeds,
        per_layer,
        planned,
        read_run,
        render,
    )

    exact = form in ("csv", "json")
    texts = []
    read = [read_run(run) for run in runs]
    options.print_missing(read)
    if not layers:
        table = pd.concat([planned(run) for run in read], ignore_index=True)
        texts.append(render(table if exact else over_seeds(table), form))
    if layers or not exact:
        zeros = pd.concat([layer_sparsity(run) for run in read], ignore_index=True)
        texts.append(render(zeros if exact else per_layer(zeros), form))
    click.echo("\n".join(texts), nl=False)
