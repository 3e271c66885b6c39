"""`tfprune verify`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from tfprune.cli import options


@click.command("verify")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@options.imports
@options.as_json
def verify_command(directory: Path, as_json: bool) -> None:
    """Verify the artifacts in DIRECTORY, an export or a run: hash, loading and running.

    Exits with 1 where one of them fails. A SavedModel is a program: verify only what you would
    also run.
    """
    from tfprune.artifacts import verify

    verdicts = verify(directory)
    passed = all(each.passed for each in verdicts)
    if as_json:
        listed = [dataclasses.asdict(each) for each in verdicts]
        click.echo(json.dumps({"passed": passed, "artifacts": listed}, indent=2))
    else:
        for each in verdicts:
            click.echo(f"{'ok' if each.passed else 'FAILED':8}{each.path}: {each.said}")
    if not passed:
        click.get_current_context().exit(1)
