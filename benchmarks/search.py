"""Searches against hand-written pipelines, with the epochs that these need, on three tasks.

    python -m benchmarks.search --task vgg-cpu --task resnet8-ethos-u55 --task segmentation-cpu

A task is a search and the best variant of a shipped pipeline: both start from the same dense model
and train as many epochs in all. Won is the search whose winner is at least 1 point better at equal
cost, or 20% cheaper at an equal figure, on test data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pandas as pd

import tfprune
from tfprune.devices import find_device
from tfprune.errors import UsageError
from tfprune.files import write_json
from tfprune.model.reference import find_model
from tfprune.pipeline import Pipeline, provenance
from tfprune.pipeline.runner import run
from tfprune.report import comparison, read_run
from tfprune.searching import load_search

_POINTS = 1.0
_CHEAPER = 0.8


@dataclass(frozen=True)
class Task:
    """What is compared.

    Attributes:
        common: data, model, task and training, as pipelines and searches have them.
        dense: epochs of the dense training.
        hand: the steps behind it that a person wrote.
        device: where the cost is measured.
        minimize: the cost.
        formats: of the hand-written variant, one variant each.
    """

    common: Mapping[str, Any]
    dense: int
    hand: Mapping[str, Mapping[str, Any]]
    device: str
    minimize: str
    formats: tuple[str, ...]

    @property
    def epochs(self) -> int:
        """Of the hand-written variant, beyond the dense model."""
        return sum(step.get("epochs", 0) for step in self.hand.values())


_CIFAR = {
    "data": {"name": "cifar10"},
    "training": {
        "batch_size": 128,
        "augment": ["flip", "crop"],
        "learning_rate": 0.1,
        "weight_decay": 5e-3,
    },
}
TASKS = {
    "vgg-cpu": Task(
        {**_CIFAR, "model": {"name": "vgg", "options": {"width": 16}}},
        10,
        {
            "slim": {"kind": "slim", "macs": 0.5, "importance": "taylor", "round_to": 8},
            "finetune": {"kind": "train", "epochs": 10, "learning_rate": 0.05},
        },
        "cpu",
        "latency",
        ("tflite", "tflite-int8"),
    ),
    "resnet8-ethos-u55": Task(
        {**_CIFAR, "model": {"name": "resnet8"}},
        10,
        {
            "slim": {"kind": "slim", "macs": 0.5, "importance": "taylor", "round_to": 8},
            "finetune": {"kind": "train", "epochs": 10, "learning_rate": 0.05},
        },
        "ethos-u55-128",
        "latency",
        ("tflite-int8",),
    ),
    "segmentation-cpu": Task(
        {
            "data": {"name": "pipelines/segmentation.py:pictures"},
            "model": {"name": "pipelines/segmentation.py:unet"},
            "task": {"kind": "segmentation"},
            "training": {"optimizer": "adam", "learning_rate": 3e-3, "batch_size": 32},
        },
        6,
        {
            "slim": {"kind": "slim", "macs": 0.5, "importance": "taylor"},
            "finetune": {"kind": "train", "epochs": 6, "learning_rate": 3e-3},
        },
        "cpu",
        "latency",
        ("tflite", "tflite-int8"),
    ),
}


def compare(
    name: str, task: Task, out: Path, seed: int, trials: int, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs both, and measures all files side by side on the device."""
    common = {**task.common, **changes}
    steps = {"dense": {"kind": "train", "epochs": task.dense}, **task.hand}
    ends = {f"as-{form}": {"kind": "export", "formats": [form]} for form in task.formats}
    hand = Pipeline.model_validate(
        {
            **common,
            "name": f"{name}-hand-{seed}",
            "seeds": [seed],
            "formats": ["keras", task.formats[0]],
            "steps": {**steps, **ends},
            "variants": {
                "dense": ["dense"],
                **{f"hand-{form}": [*steps, f"as-{form}"] for form in task.formats},
            },
        }
    )
    say = click.echo
    by_hand = run(hand, out=out, say=say, progress=True)
    found = tfprune.search(
        load_search(
            **common,
            name=f"{name}-search-{seed}",
            epochs=task.dense,
            recovery=task.epochs,
            recovery_rate=task.hand["finetune"]["learning_rate"]
            / task.common["training"]["learning_rate"],
            device=task.device,
            minimize=task.minimize,
            max_drop=1.0,
            trials=trials,
            seed=seed,
            space={"formats": list(task.formats)},
        ),
        out=out,
        say=say,
        progress=True,
    )
    figure, cost = found.figure, found.search.cost.name
    table = comparison(read_run(by_hand))
    rows = [
        (row.variant, getattr(row, figure.name), by_hand / row.variant / f"seed-{seed}")
        for row in table.itertuples()
        if row.variant.startswith("hand-")
    ]
    chosen = found.test[found.test.variant == "winner"].iloc[0]
    rows.append(("winner", chosen[figure.name], found.directory / "winner" / f"seed-{seed}"))
    files = [next(iter(sorted(folder.glob("model*.tflite")))) for *_, folder in rows]
    told = find_device(task.device).measure(files)
    costs = [each.figures[cost] for each in told]
    values = [float(figure.gain(value)) for _, value, _ in rows]
    points = 100 if figure.is_share else 1
    *others, (winner_value, winner_cost) = zip(values, costs, strict=True)
    won = all(
        (winner_cost <= other_cost and points * (winner_value - value) >= _POINTS)
        or (winner_value >= value and winner_cost <= _CHEAPER * other_cost)
        for value, other_cost in others
    )
    return {
        "task": name,
        "seed": seed,
        "figure": figure.name,
        "cost": cost,
        "rows": [
            {"variant": variant, figure.name: float(value), cost: price}
            for (variant, value, _), price in zip(rows, costs, strict=True)
        ],
        "won": won,
        "said": found.said,
        "trials": len(found.tried),
    }


@click.command()
@click.option("--task", "names", multiple=True, type=click.Choice(list(TASKS)), required=True)
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--trials", default=24, show_default=True)
@click.option("--limit", type=int, help="Examples of each split, to try it out.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("saved_models"))
@click.option("--output", type=click.Path(path_type=Path), help="A JSON file for the result.")
def main(
    names: tuple[str, ...],
    seeds: str,
    trials: int,
    limit: int | None,
    out: Path,
    output: Path | None,
) -> None:
    """Compare searches with hand-written pipelines."""
    results = []
    for name in names:
        task = TASKS[name]
        try:
            find_device(task.device).check()
            find_model(task.common["model"]["name"])
        except UsageError as error:
            click.echo(f"{name} is left out: {error}", err=True)
            continue
        changes = {"data": {**task.common["data"], "limit": limit}} if limit else {}
        for seed in map(int, seeds.split(",")):
            results.append(compare(name, task, out, seed, trials, changes))
            click.echo(pd.DataFrame(results[-1]["rows"]).to_string(index=False))
    if output is not None:
        write_json(
            output,
            {
                "command": provenance.command(),
                "commit": provenance.commit(),
                "machine": provenance.machine(),
                "results": results,
            },
        )


if __name__ == "__main__":
    main()
