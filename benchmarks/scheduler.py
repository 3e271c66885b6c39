"""How planning, scheduling and the store grow: to 1,000 workers and 100,000 tasks, simulated.

    python -m benchmarks.scheduler --output benchmarks/results/scheduler.json

No task is done: each takes a random time on a simulated clock, and one of a thousand loses its
worker. What is timed is the planner, the scheduler, and the operations of the store: finishing a
result, and finding out that it is finished.
"""

from __future__ import annotations

import heapq
import random
import tempfile
import time
from pathlib import Path

import click
import pandas as pd

from benchmarks import in_turn
from tfprune.pipeline import Pipeline
from tfprune.pipeline.jobs import Job, Schedule, plan_jobs
from tfprune.pipeline.store import Store

_LOST = 1e-3


def _pipeline(variants: int) -> Pipeline:
    """A dense training, and for each variant a cut and a retraining: three tasks a variant."""
    return Pipeline.model_validate(
        {
            "name": "many",
            "formats": ["keras"],
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {
                "dense": {"kind": "train", "epochs": 1},
                "tune": {"kind": "train", "epochs": 1},
                **{
                    f"cut-{number}": {"kind": "slim", "macs": (number + 1) / (variants + 1)}
                    for number in range(variants)
                },
            },
            "variants": {
                f"v{number}": ["dense", f"cut-{number}", "tune"] for number in range(variants)
            },
        }
    )


def simulate(jobs: list[Job], workers: int, chance: random.Random) -> dict[str, float]:
    """Runs a schedule on a simulated clock: its length, and what an ideal one would be."""
    schedule = Schedule(jobs)
    clock, lost, work = 0.0, 0, 0.0
    running: list[tuple[float, int]] = []
    while not schedule.is_over:
        while len(running) < workers and (place := schedule.take()) is not None:
            heapq.heappush(running, (clock + chance.uniform(0.5, 1.5), place))
        begun = clock
        clock, place = heapq.heappop(running)
        work += (clock - begun) * (len(running) + 1)
        if chance.random() < _LOST:
            lost += 1
            schedule.lost(place)
        else:
            schedule.done(place)
    return {"clock": clock, "busy": work / (clock * workers), "lost": lost}


def store_operations(count: int) -> dict[str, float]:
    """Microseconds of one operation of a store that holds so many results."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        begun = time.perf_counter()
        for number in range(count):
            store.finish(Path(folder) / "steps" / f"s{number}", str(number), lambda _: {})
        made = time.perf_counter() - begun
        begun = time.perf_counter()
        for number in range(count):
            store.finish(Path(folder) / "steps" / f"s{number}", str(number), lambda _: {})
        return {
            "finish_us": 1e6 * made / count,
            "find_us": 1e6 * (time.perf_counter() - begun) / count,
        }


def measure(tasks: int, workers: int, stored: int) -> dict[str, float]:
    """One row of the table."""
    begun = time.perf_counter()
    pipeline = _pipeline((tasks - 2) // 3)
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    jobs = [job for job in plan_jobs(pipeline, Path("runs"), "0") if job.kind != "latency"]
    planned = time.perf_counter() - begun
    begun = time.perf_counter()
    simulated = simulate(jobs, workers, random.Random(0))
    return {
        "tasks": len(jobs),
        "workers": workers,
        "read_s": read,
        "plan_s": planned,
        "schedule_s": time.perf_counter() - begun,
        **simulated,
        "stored": stored,
        **store_operations(stored),
    }


@click.command()
@click.option("--most", default=100_000, show_default=True, help="Tasks of the largest plan.")
@click.option("--stored", default=10_000, show_default=True, help="Results in the largest store.")
@click.option("--output", type=click.Path(path_type=Path), help="A JSON file for the result.")
def main(most: int, stored: int, output: Path | None) -> None:
    """Print the table in Markdown: each row has ten times the tasks of the one before."""
    rows = [
        measure(most // part, max(1, 1000 // part), max(1, stored // part)) for part in (100, 10, 1)
    ]
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3g"))
    in_turn.write(output, rows=rows)


if __name__ == "__main__":
    main()
