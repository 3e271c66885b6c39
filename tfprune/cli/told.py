"""What a run lacks, told on stderr by every command that reads one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tfprune.report.run import Run


def tell(runs: Iterable[Run]) -> None:
    """Names what runs plan and do not have.

    Args:
        runs: what `read_run` read.
    """
    for run in runs:
        for line in run.notes():
            click.echo(f"missing: {line}", err=True)
