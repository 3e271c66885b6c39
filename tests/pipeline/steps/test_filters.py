"""Steps that remove filters rank them by the losses of the pipeline's task."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from tfprune.data import Arrays, Dataset
from tfprune.errors import UsageError
from tfprune.filters import channel_groups, scores
from tfprune.pipeline.steps.base import Context
from tfprune.pipeline.steps.filters import LearnStep, SlimStep
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cycles": 0.5}, "cycles is what a device tells"),
        ({"cycles": 0.5, "device": "ethos-u55-1"}, "ethos-u55-1 is not built"),
        ({"cycles": 0.5, "device": "cpu"}, "device cpu cannot be planned for"),
        ({"macs": 0.5, "device": "ethos-u55-32"}, "device has no meaning for the target macs"),
        ({"bytes": 5, "device": "ethos-u55-32"}, "bytes has no meaning for device ethos-u55-32"),
        ({"latency": 0.5, "device_options": {"threads": 2}}, "device_options are for a device"),
        (
            {"latency": 0.5, "device": "ethos-u55-32", "format": "tflite-int8"},
            "format has no meaning for the target latency",
        ),
    ],
)
def test_a_target_of_a_device_names_one(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SlimStep(kind="slim", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cycles": 0.5}, "cycles is learnt for a device: give one"),
        ({"cycles": 0.5, "device": "cpu"}, "device cpu cannot be planned for"),
        ({"macs": 0.5, "device": "ethos-u55-32"}, "device has no meaning without one of latency"),
        ({"strength": 0.5, "device_options": {"a": 2}}, "device_options has no meaning without"),
        ({"flash": "9 KO", "device": "ethos-u55-32"}, "'9 KO' has the unknown unit 'KO'"),
    ],
)
def test_what_is_learnt_for_a_device_names_one(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LearnStep(kind="learn", epochs=1, **options)


def test_bytes_of_a_device_are_told() -> None:
    step = LearnStep(kind="learn", epochs=1, flash="64 KB", device="ethos-u55-32")
    assert step.describe().startswith(
        "shrinks channels until 64,000 bytes of storage are needed, as estimated for ethos-u55-32, "
        "to zero, the least important by lasso first"
    )


def test_a_step_for_a_device_needs_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    step = SlimStep(
        kind="slim",
        sram=0.5,
        device="ethos-u55-32",
        device_options={"memory_mode": "Sram_Only"},
    )
    assert step.describe() == (
        "removes channels until 50% of the on-chip memory is left, as estimated for ethos-u55-32, "
        "the least important by l2 first"
    )
    device = step.find_device()
    assert device is not None and device.settings()["memory_mode"] == "Sram_Only"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[ethos-u\]'"):
        step.check_installed()
