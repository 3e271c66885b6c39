"""How far an evaluation is: a bar on a terminal, one line at its end elsewhere. All on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@contextlib.contextmanager
def counted(
    description: str, total: int, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Counts images.

    Args:
        description: What is being evaluated.
        total: How many images there are.
        console: Where to write; a rich console on stderr by default.

    Yields:
        A function to tell how many more are done, from any thread.
    """
    console = console or Console(stderr=True)
    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Drawing takes time from the threads that compute.
        refresh_per_second=4,
    )
    task = bar.add_task(description, total=total)
    begun = time.monotonic()
    with bar:
        yield lambda count: bar.advance(task, count)
    if not console.is_terminal:
        console.print(
            f"{description}: {total:,} images in {time.monotonic() - begun:.1f} s",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
