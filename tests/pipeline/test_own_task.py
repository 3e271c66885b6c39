"""A run of a model, data and losses of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tfprune.errors import UsageError
from tfprune.pipeline import Pipeline
from tfprune.pipeline.runner import run

CODE = """
import keras
import numpy as np

def data():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    return {"train": (x, x.sum(axis=1, keepdims=True)), "test": (x[:8], x[:8, :1])}

def build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model

def far(y, z):
    return keras.ops.mean(keras.ops.abs(y - z), axis=-1)
"""


def _pipeline(folder: Path, name: str, **more: Any) -> Pipeline:
    (folder / f"{name}.py").write_text(CODE)
    return Pipeline.model_validate(
        {
            "name": "own",
            "formats": ["keras"],
            "data": {"name": f"{folder / name}.py:data"},
            "model": {"name": f"{folder / name}.py:build"},
            "training": {"epochs": 1, "learning_rate": 0.01},
            "steps": {
                "dense": {"kind": "train", "keep": [1]},
                "sparse": {"kind": "prune", "sparsity": 0.5, "frequency": 1},
            },
            "variants": {"it": ["dense", "sparse"]},
            **more,
        }
    )


def test_a_budget_that_only_the_model_can_tell_is_checked_before_the_first_epoch(tmp_path):
    budget = {"rules": [{"accuracy": {"min": 0.5}}]}
    pipeline = _pipeline(tmp_path, "own_budget", budget=budget)
    assert pipeline.figure is None
    with pytest.raises(UsageError, match=r"budget\.rules#1\.accuracy"):
        run(pipeline, out=tmp_path)
    assert not list(tmp_path.glob("own/steps/*"))


@pytest.mark.slow
def test_a_file_that_keeps_no_task_is_said_of_what_is_delivered_and_of_no_step(tmp_path):
    task = {
        "loss": f"{tmp_path / 'own_losses'}.py:far",
        "metrics": ["mae"],
        "figure": "mae",
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(_pipeline(tmp_path, "own_losses", task=task), out=tmp_path)
    said = [str(each.message) for each in caught if "does not come back" in str(each.message)]
    assert len(said) == 1
    assert len(list(tmp_path.glob("own/steps/*/model.keras"))) == 2
