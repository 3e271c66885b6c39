"""How far a training or an evaluation is: a bar on a terminal, lines elsewhere. All on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress(keras.callbacks.Callback):
    """Shows the epoch, the loss, the figure, the sparsity if it is logged, and the time left.

    Example:
        ```python
        with Progress("dense") as progress:
            model.fit(x, y, epochs=10, verbose=0, callbacks=[progress])
        ```

    As a context manager it clears the bar even if the training fails.

    Args:
        description: the name of the training.
        first_epoch: the epoch at which the training starts or resumes, counted from 0.
        after: maps the seconds of an epoch to the seconds of work that follow this training; None
            if no work follows.
        figure: the name of the figure in the logs of the training.
        console: where to write; by default a rich console on stderr.
    """

    def __init__(
        self,
        description: str,
        *,
        first_epoch: int = 0,
        after: Callable[[float], float] | None = None,
        figure: str = "accuracy",
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self._description = description
        self._first_epoch = first_epoch
        self._after = after
        self._figure = figure
        self._epoch = first_epoch
        self._console = console or Console(stderr=True)
        self._started = 0.0
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[whole]}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(description, total=None, state="", whole="")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock and the bar."""
        self._started = time.monotonic()
        if self.params["steps"]:
            epochs = self.params["epochs"] - self._first_epoch
            self._bar.update(self._task, total=epochs * self.params["steps"])
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stores the number of the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Advances the bar."""
        if self._console.is_terminal:
            done = (self._epoch - self._first_epoch) * (self.params["steps"] or 0) + batch + 1
            self._bar.update(self._task, completed=done, state=self._state(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Prints a line for the epoch if the console is not a terminal."""
        done = epoch + 1 - self._first_epoch
        seconds_per_epoch = (time.monotonic() - self._started) / done
        here = seconds_per_epoch * (self.params["epochs"] - epoch - 1)
        whole = ""
        if self._after is not None:
            whole = f", {_clock(here + self._after(seconds_per_epoch))} of the run"
        if self._console.is_terminal:
            self._bar.update(self._task, state=self._state(logs or {}), whole=whole)
            return
        self._console.print(
            f"{self._description}: {self._state(logs or {})}, {_clock(here)} left{whole}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Clears the bar."""
        self._bar.stop()

    def _state(self, logs: Mapping[str, Any]) -> str:
        figures = [
            f"{name} {logs[name]:.4f}"
            for name in dict.fromkeys(("loss", self._figure, f"val_{self._figure}", "sparsity"))
            if name in logs
        ]
        return ", ".join([f"epoch {self._epoch + 1}/{self.params['epochs']}", *figures])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


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
