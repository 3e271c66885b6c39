"""Times a training step with weight pruning: tfprune on Keras 3, tfmot's wrapper on tf_keras.

Six trainings run in one process and take turns, a few steps each, so that all of them meet the
same moods of the machine: for each of the two frameworks a dense one, one whose masks follow a
polynomial schedule at every step, and one every 100 steps. Each is compared with the dense step
of its own framework. A step is all between two batches of `model.fit`, callbacks included.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

import tfprune
from benchmarks import in_turn
from tfprune.training.schedule import polynomial_decay

FREQUENCIES = (1, 100)


def conv(module: Any) -> Any:
    """A VGG of 295,402 weights on images of 32x32x3."""
    layers = module.layers
    return module.Sequential(
        [
            layers.Input((32, 32, 3)),
            *(
                layer
                for width in (32, 64, 128)
                for layer in (
                    layers.Conv2D(width, 3, padding="same", activation="relu"),
                    layers.Conv2D(width, 3, padding="same", activation="relu"),
                    layers.MaxPooling2D(),
                )
            ),
            layers.GlobalAveragePooling2D(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )


def dense(module: Any) -> Any:
    """An MLP of 335,762 weights: each is used once an example, so that a mask shows most."""
    layers = module.layers
    return module.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(300, activation="relu"),
            layers.Dense(300, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )


MODELS = {"conv": (conv, (32, 32, 3)), "mlp": (dense, (784,))}


def train(
    module: Any, name: str, frequency: int | None, batch: int, total: int, clock: Any
) -> float:
    """Trains one epoch of `total` steps and returns the sparsity that comes out, 0 to 1."""
    make, shape = MODELS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * 8, *shape)).astype("float32")
    y = rng.integers(0, 10, batch * 8)
    module.utils.set_random_seed(0)
    model, callbacks = make(module), [clock]
    if frequency is not None:
        schedule = polynomial_decay(0.0, 0.8, begin=0, end=total, frequency=frequency)
        if module is keras:
            callbacks.append(tfprune.PruneWeights(schedule))
        else:
            model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
            callbacks.append(tfmot.sparsity.keras.UpdatePruningStep())
    loss = module.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(module.optimizers.Adam(1e-3), loss)
    # The same data again and again: an epoch's end would be in the way of the clock.
    repeated = (np.concatenate([part] * (-(-total // 8)))[: total * batch] for part in (x, y))
    model.fit(*repeated, batch_size=batch, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
    if frequency is None:
        return 0.0
    stripped = tfmot.sparsity.keras.strip_pruning(model) if module is tf_keras else model
    kernels = [w for w in stripped.get_weights() if w.ndim > 1]
    return sum(int((w == 0).sum()) for w in kernels) / sum(w.size for w in kernels)


def measure(name: str, batch: int, total: int, steps: int) -> dict[str, Any]:
    """Runs the six trainings of one model in turn."""
    players = [(module, each) for module in (keras, tf_keras) for each in (None, *FREQUENCIES)]
    results = in_turn.alternated(
        [
            (module, partial(train, module, name, frequency, batch, total))
            for module, frequency in players
        ],
        steps,
    )
    rows = {}
    for (module, frequency), (own, sparsity) in zip(players, results, strict=True):
        base, _ = results[0 if module is keras else 1 + len(FREQUENCIES)]
        tool = "tfprune" if module is keras else "tfmot"
        rows[f"{tool} {'dense' if frequency is None else f'every {frequency}'}"] = {
            **in_turn.compared(own, base),
            "final_sparsity": sparsity,
        }
    return {"batch": batch, "rows": rows}


@click.command()
@in_turn.options(MODELS, batch=64)
def pruning_step(
    names: tuple[str, ...], batch: int, total: int, turn: int, output: Path | None
) -> None:
    """Time a training step: dense, and pruned by tfprune and by tfmot."""
    results = {name: measure(name, batch, total, turn) for name in names or MODELS}
    for name, result in results.items():
        click.echo(f"{name}, batch {batch}")
        for row, figures in result["rows"].items():
            sparsity = figures["final_sparsity"]
            click.echo(f"  {row:18} {in_turn.shown(figures)}  sparsity {sparsity:.4f}")
    in_turn.write(output, models=results)


if __name__ == "__main__":
    pruning_step()
