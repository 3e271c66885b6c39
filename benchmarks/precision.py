"""Times a training step in float32 and in 16 bits, taken in turn in one process.

Each precision trains the same model on the same batches with `tfprune.training`'s optimizer, loss
and dtype policy. They take turns, so that all of them meet the same moods of the machine. A step
is all between two batches of `model.fit`.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np

from benchmarks import in_turn
from tfprune import training, zoo
from tfprune.training.precision import Precision, mixed_precision

MODELS: dict[str, dict[str, Any]] = {
    "resnet20": {"name": "resnet20"},
    "vgg": {"name": "vgg", "width": 16, "blocks": (2, 2, 2)},
}
SHAPE, CLASSES = (32, 32, 3), 10


def train(name: str, precision: Precision, batch: int, total: int, clock: Any) -> float:
    """Trains one epoch of `total` steps, and returns its mean loss."""
    options = dict(MODELS[name])
    model = zoo.build(options.pop("name"), SHAPE, CLASSES, seed=0, **options)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, size=(8 * batch, *SHAPE)).astype("float32")
    y = rng.integers(0, CLASSES, 8 * batch)
    settings = training.Training(epochs=1, batch_size=batch, precision=precision)
    training.compile(model, settings, total)
    # The same data again and again: an epoch's end would be in the way of the clock.
    repeated = (np.concatenate([part] * -(-total // 8))[: total * batch] for part in (x, y))
    with mixed_precision(model, precision):
        history = model.fit(
            *repeated, batch_size=batch, epochs=1, verbose=0, shuffle=False, callbacks=[clock]
        )
    return float(history.history["loss"][0])


def measure(
    name: str, precisions: tuple[Precision, ...], batch: int, total: int, steps: int
) -> dict[str, Any]:
    """Trains one model in each precision in turn."""
    results = in_turn.alternated(
        [(keras, partial(train, name, precision, batch, total)) for precision in precisions],
        steps,
    )
    rows = {}
    for precision, (own, loss) in zip(precisions, results, strict=True):
        rows[precision] = {**in_turn.compared(own, results[0][0]), "loss": loss}
    return {"batch": batch, "rows": rows}


@click.command()
@in_turn.options(MODELS, batch=128)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(get_args(Precision)),
    default=("float32", "mixed_bfloat16"),
    show_default=True,
    help="The first one is what the others are compared with.",
)
def precision(
    names: tuple[str, ...],
    batch: int,
    total: int,
    turn: int,
    output: Path | None,
    precisions: tuple[Precision, ...],
) -> None:
    """Time a training step in float32 and in 16 bits."""
    results = {name: measure(name, precisions, batch, total, turn) for name in names or MODELS}
    for name, result in results.items():
        click.echo(f"{name}, batch {batch}")
        for row, figures in result["rows"].items():
            faster = 1 / figures["median_of_ratios"]
            click.echo(
                f"  {row:15} {in_turn.shown(figures)}  {faster:.2f} times the steps a second"
            )
    in_turn.write(output, models=results)


if __name__ == "__main__":
    precision()
