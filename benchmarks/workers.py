"""How much sooner two Ray workers end a run than one, on this machine.

    python -m benchmarks.workers --output benchmarks/results/workers.json

The run has 60 tasks: of twenty seeds each a dense training, a training with zeros behind it, and
the delivery of the result. It is made anew with one worker and with two, in turn; a time is that of
the tasks, with the start of the workers' processes. TensorFlow takes all cores of a machine for one
process where an operator is large enough, so one worker is faster than one core.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import in_turn
from tfprune.pipeline import Pipeline
from tfprune.pipeline.executors import Execution
from tfprune.pipeline.runner import run

_TASKS_OF_A_SEED = 3


def pipeline(tasks: int, epochs: int) -> Pipeline:
    """The run, with as many seeds as make so many tasks."""
    return Pipeline.model_validate(
        {
            "name": "workers",
            "seeds": list(range(tasks // _TASKS_OF_A_SEED)),
            "formats": ["tflite"],
            "data": {"name": "digits"},
            "model": {"name": "vgg", "options": {"width": 8}},
            "training": {"batch_size": 32, "learning_rate": 0.05},
            "steps": {
                "dense": {"kind": "train", "epochs": epochs},
                "sparse": {"kind": "prune", "sparsity": 0.8, "epochs": epochs},
            },
            "variants": {"sparse": ["dense", "sparse"]},
        }
    )


def seconds(asked: Pipeline, workers: int) -> float:
    """How long the tasks of a run take, in a directory of their own."""
    ends: list[float] = []

    def say(line: str) -> None:
        if line.startswith("done, "):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory(prefix="tfprune-workers-") as folder:
        begun = time.perf_counter()
        run(asked, out=Path(folder), execution=Execution("ray", workers=workers), say=say)
    return ends[-1] - begun


@click.command()
@click.option("--tasks", default=60, show_default=True)
@click.option("--epochs", default=5, show_default=True, help="Of each training.")
@click.option("--turns", default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="A JSON file for the result.")
def main(tasks: int, epochs: int, turns: int, output: Path | None) -> None:
    """Print the seconds of one worker and of two, and their ratio."""
    asked = pipeline(tasks, epochs)
    rows: list[dict[str, Any]] = []
    for turn in range(turns):
        for workers in (1, 2):
            rows.append({"turn": turn, "workers": workers, "seconds": seconds(asked, workers)})
            click.echo(rows[-1])
    of = {
        workers: statistics.median(row["seconds"] for row in rows if row["workers"] == workers)
        for workers in (1, 2)
    }
    click.echo(f"two workers take {of[2] / of[1]:.2f} of the time of one")
    in_turn.write(output, tasks=tasks, epochs=epochs, rows=rows, ratio=of[2] / of[1])


if __name__ == "__main__":
    main()
