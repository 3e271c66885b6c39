"""`tfprune devices`: where files can be measured from here, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tfprune.cli import options
from tfprune.vocabulary import DEVICES

if TYPE_CHECKING:
    from tfprune.devices import Device


@click.group("devices", invoke_without_command=True)
@options.as_json
@click.pass_context
def devices_command(context: click.Context, as_json: bool) -> None:
    """List the devices that files can be measured on, and what is missing here."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json is for the list: leave it out")
        return
    from tfprune.devices.registry import kinds

    rows = [_row(kind) for kind in kinds()]
    if as_json:
        options.print_json(rows)
        return
    import pandas as pd

    from tfprune.report import render

    table = pd.DataFrame(rows)
    table["missing"] = [said or "nothing" for said in table["missing"]]
    click.echo(render(table), nl=False)


@devices_command.command("install")
@click.argument("name")
def install_command(name: str) -> None:
    """Install what the device NAME needs and pip does not install, with the pinned versions.

    It goes to the user's cache. The device wasm gets its npm packages.
    """
    from tfprune.devices.registry import find_kind

    click.echo(find_kind(name).install())


def _row(kind: type[Device]) -> dict[str, str]:
    from tfprune.devices.registry import missing

    options = kind.required_options()
    lacking = f"options: {', '.join(options)}" if options else missing(kind)
    return {"device": kind.key, "what": DEVICES[kind.key], "missing": lacking}
