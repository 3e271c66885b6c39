from __future__ import annotations

import os
from pathlib import Path

# TensorFlow reads it once, when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

from tests import reliability
from tfprune import data
from tfprune.pipeline import Pipeline
from tfprune.pipeline.runner import run

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-reliability", action="store_true", help="write its table again")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("--write-reliability"):
        lines = reliability.table(session.items)
        reliability.DOCUMENT.write_text(reliability.written(lines), encoding="utf-8")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """No test depends on which ran before it."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    """scikit-learn's digits, 8x8x1, capped so that an epoch takes no time."""
    return data.load("digits", limit=200)


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """A directory of tensorflow_datasets that holds CIFAR-10 prepared; skips where there is none.

    Looked for in TFDS_DATA_DIR, then beside the checkout.
    """
    named = os.environ.get("TFDS_DATA_DIR")
    beside = ROOT.parent / "shared" / "tensorflow_datasets"
    for directory in [Path(named)] if named else [beside]:
        if (directory / "cifar10").is_dir():
            return directory
    pytest.skip("no prepared CIFAR-10: set TFDS_DATA_DIR to a directory that holds it")


@pytest.fixture(scope="session")
def tiny_pipeline() -> Pipeline:
    """Every kind of step on few images and a tiny net."""
    return Pipeline.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "limit": 128},
            "model": {"name": "vgg", "options": {"width": 4, "blocks": [1, 1]}},
            "training": {"batch_size": 32, "learning_rate": 0.05},
            "steps": {
                "dense": {"kind": "train", "epochs": 2},
                "sparse": {"kind": "prune", "epochs": 2, "sparsity": 0.75, "frequency": 2},
                "learn": {"kind": "learn", "epochs": 1, "strength": 1e-3},
                "slim": {"kind": "slim", "macs": 0.5, "importance": "lasso", "recalibrate": 64},
            },
            "variants": {
                "dense": ["dense"],
                "sparse": ["dense", "sparse"],
                "both": ["dense", "learn", "slim", "sparse"],
            },
        }
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of `tiny_pipeline`; nobody may change it."""
    return run(tiny_pipeline, out=tmp_path_factory.mktemp("runs"))
