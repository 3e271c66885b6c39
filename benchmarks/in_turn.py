"""Training steps timed in turn: several trainings in one process, a step of each at a time.

So all of them meet the same moods of the machine. A step is all between two batches of
`model.fit`, callbacks included.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from tfprune.files import write_json
from tfprune.pipeline import provenance

# The first steps trace and warm up.
_WARM_UP = 10


def options(models: Iterable[str], batch: int) -> Callable[[Any], Any]:
    """The options of a command that times trainings in turn.

    Args:
        models: Names to choose from.
        batch: Images of a step, by default.
    """
    declared = (
        click.option("--model", "names", multiple=True, type=click.Choice(list(models))),
        click.option("--batch", default=batch, show_default=True),
        click.option("--total", default=300, show_default=True, help="Steps of each training."),
        click.option("--turn", default=1, show_default=True, help="Steps of each turn."),
        click.option("--output", type=click.Path(path_type=Path), help="A JSON file to write."),
    )

    def decorated(command: Any) -> Any:
        for option in reversed(declared):
            command = option(command)
        return command

    return decorated


class _Turns:
    """Lets threads run one after the other, in rounds."""

    def __init__(self, players: int) -> None:
        self._condition = threading.Condition()
        self._waiting = list(range(players))

    def wait_for(self, player: int) -> None:
        """Returns when it is the player's turn."""
        with self._condition:
            self._condition.wait_for(lambda: not self._waiting or self._waiting[0] == player)

    def pass_on(self, player: int, leave: bool = False) -> None:
        """Gives the turn to the next one."""
        with self._condition:
            self._waiting.remove(player)
            if not leave:
                self._waiting.append(player)
            self._condition.notify_all()


def _timer(module: Any, turns: _Turns, player: int, steps: int) -> Any:
    """A callback of either Keras that takes turns every `steps` steps and times each step."""

    class Timer(module.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.milliseconds: list[float] = []
            self._begun = 0.0

        def on_train_begin(self, logs: Any = None) -> None:
            turns.wait_for(player)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch > _WARM_UP:
                self.milliseconds.append(1000 * (time.perf_counter() - self._begun))
            if batch and batch % steps == 0:
                turns.pass_on(player)
                turns.wait_for(player)
            self._begun = time.perf_counter()

        def on_train_end(self, logs: Any = None) -> None:
            turns.pass_on(player, leave=True)

    return Timer()


def alternated(
    trainings: Sequence[tuple[Any, Callable[[Any], Any]]], steps: int
) -> list[tuple[list[float], Any]]:
    """Runs trainings in turn.

    Args:
        trainings: of each, the Keras module it uses, and what trains when it is given a callback.
        steps: before it is the next one's turn.

    Returns:
        Of each, the milliseconds of its steps, and what its training returned.
    """
    turns = _Turns(len(trainings))
    clocks = [_timer(module, turns, i, steps) for i, (module, _) in enumerate(trainings)]
    results: dict[int, Any] = {}

    def run(index: int) -> None:
        try:
            results[index] = trainings[index][1](clocks[index])
        except BaseException:
            turns.pass_on(index, leave=True)
            raise

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(trainings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(clock.milliseconds, results[index]) for index, clock in enumerate(clocks)]


def compared(own: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """How the steps of one training compare with those of another that took turns with it.

    Args:
        own: milliseconds of each step.
        base: those of the other.
    """
    return {
        "steps": len(own),
        "median_ms": statistics.median(own),
        "mean_ms": statistics.fmean(own),
        "ratio_of_medians": statistics.median(own) / statistics.median(base),
        # Of the same round: what the machine does besides falls out.
        "median_of_ratios": statistics.median(
            mine / other for mine, other in zip(own, base, strict=True)
        ),
        "ratio_of_means": statistics.fmean(own) / statistics.fmean(base),
    }


def shown(figures: dict[str, Any]) -> str:
    """A line of figures from `compared`."""
    return (
        f"median {figures['median_ms']:8.2f} ms  {figures['ratio_of_medians']:.3f}x  "
        f"by round {figures['median_of_ratios']:.3f}x  mean {figures['ratio_of_means']:.3f}x"
    )


def write(output: Path | None, **results: Any) -> None:
    """Writes results with what they were made by; nowhere if `output` is None."""
    if output is not None:
        module = f"benchmarks.{Path(sys.argv[0]).stem}"
        write_json(
            output,
            {
                "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
                "commit": provenance.commit(),
                "versions": provenance.versions(),
                "machine": provenance.machine(),
                **results,
            },
        )
