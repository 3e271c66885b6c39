"""Times a training step with weight pruning: tfprune on Keras 3, tfmot's wrapper on tf_keras.

Six trainings run in one process and take turns, a few steps each, so that all of them meet the
same moods of the machine: for each of the two frameworks a dense one, one whose masks follow a
polynomial schedule at every step, and one every 100 steps. Each is compared with the dense step
of its own framework. A step is all between two batches of `model.fit`, callbacks included.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

import tfprune
from tfprune.files import write_json
from tfprune.pipeline import provenance
from tfprune.schedule import polynomial_decay

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


class Turns:
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


def timer(module: Any, turns: Turns, player: int, steps: int, warm_up: int) -> Any:
    """A callback of either Keras that takes turns every `steps` steps and times each step."""

    class Timer(module.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.milliseconds: list[float] = []
            self._begun = 0.0

        def on_train_begin(self, logs: Any = None) -> None:
            turns.wait_for(player)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch > warm_up:
                self.milliseconds.append(1000 * (time.perf_counter() - self._begun))
            if batch and batch % steps == 0:
                turns.pass_on(player)
                turns.wait_for(player)
            self._begun = time.perf_counter()

        def on_train_end(self, logs: Any = None) -> None:
            turns.pass_on(player, leave=True)

    return Timer()


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
    turns = Turns(len(players))
    # The first steps trace and warm up.
    clocks = [timer(module, turns, i, steps, 10) for i, (module, _) in enumerate(players)]
    sparsities: dict[int, float] = {}

    def run(index: int) -> None:
        module, frequency = players[index]
        try:
            sparsities[index] = train(module, name, frequency, batch, total, clocks[index])
        except BaseException:
            turns.pass_on(index, leave=True)
            raise

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(players))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = {}
    for index, (module, frequency) in enumerate(players):
        base = clocks[0 if module is keras else 1 + len(FREQUENCIES)].milliseconds
        own = clocks[index].milliseconds
        tool = "tfprune" if module is keras else "tfmot"
        rows[f"{tool} {'dense' if frequency is None else f'every {frequency}'}"] = {
            "steps": len(own),
            "median_ms": statistics.median(own),
            "mean_ms": statistics.fmean(own),
            "ratio_of_medians": statistics.median(own) / statistics.median(base),
            # Of the same round: what the machine does besides falls out.
            "median_of_ratios": statistics.median(
                mine / other for mine, other in zip(own, base, strict=True)
            ),
            "ratio_of_means": statistics.fmean(own) / statistics.fmean(base),
            "final_sparsity": sparsities[index],
        }
    return {"batch": batch, "rows": rows}


@click.command()
@click.option("--model", "names", multiple=True, type=click.Choice(list(MODELS)))
@click.option("--batch", default=64, show_default=True)
@click.option("--total", default=300, show_default=True, help="Steps of each training.")
@click.option("--turn", default=1, show_default=True, help="Steps before the next one's turn.")
@click.option("--output", type=click.Path(path_type=Path), help="A JSON file for the result.")
def pruning_step(
    names: tuple[str, ...], batch: int, total: int, turn: int, output: Path | None
) -> None:
    """Time a training step: dense, and pruned by tfprune and by tfmot."""
    results = {name: measure(name, batch, total, turn) for name in names or MODELS}
    for name, result in results.items():
        click.echo(f"{name}, batch {batch}")
        for row, figures in result["rows"].items():
            click.echo(
                f"  {row:18} median {figures['median_ms']:8.2f} ms  "
                f"{figures['ratio_of_medians']:.3f}x  by round {figures['median_of_ratios']:.3f}x  "
                f"mean {figures['ratio_of_means']:.3f}x  "
                f"sparsity {figures['final_sparsity']:.4f}"
            )
    if output is not None:
        write_json(
            output,
            {
                "command": f"python {' '.join(sys.argv)}",
                "commit": provenance.commit(),
                "versions": provenance.versions(),
                "machine": provenance.machine(),
                "models": results,
            },
        )


if __name__ == "__main__":
    pruning_step()
