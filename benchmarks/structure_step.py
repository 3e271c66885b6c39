"""Times a training step that learns structure, beside a plain one, in one process and in turn.

The trainings are a plain one, one with `GroupLasso` as the regularizer of every kernel, one whose
proximal step is `LearnStructure` with a strength, and one with a target, planned anew every 100
steps.
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

import tfprune
from benchmarks import in_turn
from tfprune import zoo
from tfprune.filters import ChannelGroups

MODELS = {"vgg": {"width": 16, "blocks": [2, 2, 2]}, "resnet20": {}}
WAYS = ("plain", "group lasso", "proximal step", "target")
_STRENGTH = 1e-3


def train(name: str, way: str, batch: int, total: int, clock: Any) -> float:
    """Trains one epoch of `total` steps; returns the share of removable channels that died."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, size=(batch * 8, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, batch * 8)
    model = zoo.build(name, (32, 32, 3), 10, seed=0, **MODELS[name])
    callbacks = [clock]
    if way == "group lasso":
        for layer in model.layers:
            if hasattr(layer, "kernel"):
                layer.kernel.regularizer = tfprune.GroupLasso(_STRENGTH)
    elif way == "proximal step":
        callbacks.append(tfprune.LearnStructure(_STRENGTH))
    elif way == "target":
        callbacks.append(tfprune.LearnStructure(macs=0.5))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # The same data again and again: an epoch's end would be in the way of the clock.
    repeated = (np.concatenate([part] * (-(-total // 8)))[: total * batch] for part in (x, y))
    model.fit(*repeated, batch_size=batch, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
    groups = ChannelGroups(model)
    return float(groups.dead()[~groups.fixed].mean())


@click.command()
@in_turn.options(MODELS, batch=128)
def structure_step(
    names: tuple[str, ...], batch: int, total: int, turn: int, output: Path | None
) -> None:
    """Time a training step: plain, and learning which filters can go."""
    results: dict[str, Any] = {}
    for name in names or MODELS:
        click.echo(f"{name}, batch {batch}")
        timed = in_turn.alternated(
            [(keras, partial(train, name, way, batch, total)) for way in WAYS], turn
        )
        plain, _ = timed[0]
        rows = {
            way: {**in_turn.compared(own, plain), "dead": dead}
            for way, (own, dead) in zip(WAYS, timed, strict=True)
        }
        for way, figures in rows.items():
            click.echo(f"  {way:14} {in_turn.shown(figures)}  dead {figures['dead']:.3f}")
        results[name] = {"batch": batch, "rows": rows}
    in_turn.write(output, models=results)


if __name__ == "__main__":
    structure_step()
