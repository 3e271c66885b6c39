"""`tfprune inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tfprune.cli import options
from tfprune.quiet import start_keras


@click.command("inspect")
@click.argument("model", type=options.KERAS_FILE)
@options.as_json
def inspect_command(model: Path, as_json: bool) -> None:
    """Show the channel groups of MODEL, a .keras file, its frozen layers and its sparsity."""
    start_keras()
    from tfprune import channel_groups, macs, sparsity
    from tfprune.filters import group_table
    from tfprune.measure.keras_runtime import read_keras
    from tfprune.report import render

    network = read_keras(model)
    groups = channel_groups(network)
    table, zeros = group_table(groups), sparsity(network)
    if as_json:
        document = {
            "macs": macs(network),
            "parameters": network.count_params(),
            "groups": json.loads(render(table, "json")),
            "frozen": groups.frozen,
            "sparsity": json.loads(render(zeros, "json")),
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{model}: {macs(network):,} MACs, {network.count_params():,} parameters\n")
    click.echo(render(table))
    for layer, reason in groups.frozen.items():
        click.echo(f"frozen {layer}: {reason}")
    click.echo()
    click.echo(render(zeros), nl=False)
