"""Steps that remove filters rank them by the losses of the pipeline's task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfprune.data import Arrays, Dataset
from tfprune.filters import channel_groups, scores
from tfprune.pipeline.steps.base import Context
from tfprune.pipeline.steps.filters import SlimStep
from tfprune.tasks import TaskSpec, find_task

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)).astype(np.float32), RNG.normal(size=(40, 2)).astype(np.float32)


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((5,)), *layers])


@pytest.mark.parametrize(("importance", "reads"), [("l2", False), ("taylor", True)])
def test_filters_are_ranked_by_the_losses_of_the_task(importance: str, reads: bool) -> None:
    sampled: list[int] = []

    class Watched(Arrays):
        def sample(self, count: int) -> Any:
            sampled.append(count)
            return super().sample(count)

    data = Dataset("mine", (), Watched(X, Y), Arrays(X, Y), Arrays(X, Y), "")
    spec = TaskSpec(kind="regression", loss="mae")
    context = Context(data, 0, Path(), find_task=lambda model: find_task(model, spec, data))
    step = SlimStep(kind="slim", filters=0.5, importance=importance)
    plan = step.plan(net(), context)
    assert bool(sampled) == reads
    wanted = net()
    wanted.compile("sgd", "mae")
    groups = channel_groups(wanted)
    ranked = scores(groups, importance, (X, Y))[groups.producers["hidden"]]
    assert plan.removal.removed["hidden"] == sorted(np.argsort(ranked)[:4].tolist())
