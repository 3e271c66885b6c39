"""tfprune on what was handed over: filters found while it trains, or ranked once by `l2`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np

import tfprune
from benchmarks.peers.schedule import Plan, record

METHODS = ("dense", "learn", "l2")


class Rate(keras.callbacks.Callback):
    """Sets the learning rate of the plan before each step."""

    def __init__(self, plan: Plan, images: int) -> None:
        super().__init__()
        self.plan, self.images, self.step = plan, images, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the step."""
        self.model.optimizer.learning_rate = self.plan.rate_at(self.step, self.images)
        self.step += 1


def trained(model: keras.Model, arrays: Any, plan: Plan, more: list[Any]) -> None:
    """Trains in place by the plan."""
    x, y = arrays["train_x"], arrays["train_y"]
    optimizer = keras.optimizers.SGD(
        plan.rate, plan.momentum, nesterov=True, weight_decay=plan.decay
    )
    optimizer.exclude_from_weight_decay([each for each in model.weights if len(each.shape) < 2])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(
        plan.batches(x, y),
        epochs=plan.epochs,
        steps_per_epoch=plan.steps(len(x)),
        verbose=0,
        callbacks=[Rate(plan, len(x)), *more],
    )


def pruned(method: str, path: Path, arrays: Any, plan: Plan, macs: float) -> keras.Model:
    """The model with a share of its multiply-accumulates, after the training of the plan."""
    model = tfprune.load(path)
    if method == "l2":
        model = tfprune.slim(model, macs=macs, importance="l2")
    more = [tfprune.LearnStructure(macs=macs, end=0.5)] if method == "learn" else []
    trained(model, arrays, plan, more)
    return tfprune.slim(model, dead=True) if method == "learn" else model


@click.command()
@click.argument("handed", type=click.Path(exists=True, path_type=Path))
@click.argument("dense", type=click.Path(exists=True, path_type=Path))
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--macs", default=0.5, show_default=True, help="Share that is kept.")
@click.option("--epochs", default=30, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("tfprune.jsonl"))
def peer(
    handed: Path,
    dense: Path,
    methods: tuple[str, ...],
    macs: float,
    epochs: int,
    seed: int,
    out: Path,
) -> None:
    """Prune DENSE, a .keras file, on the data of HANDED, what was handed over to the peers."""
    arrays = dict(np.load(handed))
    plan = Plan(epochs=epochs, seed=seed)
    for method in methods:
        keras.utils.set_random_seed(seed)
        model = pruned(method, dense, arrays, plan, macs)
        logits = model.predict(arrays["test_x"].astype(np.float32), batch_size=256, verbose=0)
        row = {
            "tool": "tfprune",
            "version": tfprune.__version__,
            "method": method,
            "seed": seed,
            "epochs": epochs,
            "macs": tfprune.macs(model) / float(arrays["macs"]),
            "accuracy": float(np.mean(logits.argmax(-1) == arrays["test_y"])),
        }
        record(out, row)


if __name__ == "__main__":
    peer()
