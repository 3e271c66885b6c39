from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

# TensorFlow reads it once, when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from filelock import FileLock

from tests import reliability
from tfprune import data
from tfprune.artifacts import Artifact, export
from tfprune.formats import FORMATS
from tfprune.pipeline import Pipeline
from tfprune.pipeline.runner import run
from tfprune.vocabulary import RECIPE

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-reliability", action="store_true", help="write its table again")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Before the slow ones are left out, which count too.
    config.stash[reliability.COLLECTED] = list(items)
    if config.getoption("--write-reliability"):
        lines = reliability.table(items)
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
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder for what takes long to make: all workers of one pytest have the same."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_pipeline: Pipeline, shared_folder: Path) -> Path:
    """The directory of a finished run of `tiny_pipeline`; nobody may change it."""
    with FileLock(shared_folder / "tiny_run.lock"):
        # The second worker finds every step finished.
        return run(tiny_pipeline, out=shared_folder / "runs")


@pytest.fixture(scope="session")
def export_images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (40, 8, 8, 3)).astype(np.float32)


def _export_model(export_images: np.ndarray) -> keras.Model:
    """A pruned net with a depthwise layer and a residual: three of four weights are zero, and the
    rest is too large to round to zero. Its classes vary over the images."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 1)(y))
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(keras.layers.Add()([x, y])))
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = rng.uniform(0.5, 1, weight.shape)
        if weight.name == "kernel":
            values *= rng.choice([-1, 0, 0, 0, 0, 0, 0, 1], weight.shape)
        weight.assign(values)
    bias = model.layers[-1].bias
    bias.assign(bias - np.asarray(model(export_images, training=False)).mean(axis=0))
    return model


@pytest.fixture(scope="session")
def export_model(export_images: np.ndarray, shared_folder: Path) -> keras.Model:
    """The same net in all workers, with its layers' names."""
    file = shared_folder / "export_model.keras"
    with FileLock(shared_folder / "export_model.lock"):
        if not file.exists():
            _export_model(export_images).save(file)
        model = keras.saving.load_model(file)
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="session")
def export_formats() -> list[str]:
    """All that a net whose weights have many values is written as without a recipe."""
    here = importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime")
    without = {RECIPE, *(name for name in FORMATS if name.endswith("-lut"))}
    return [name for name in FORMATS if name not in without and (name != "onnx" or here)]


@pytest.fixture(scope="session")
def exports(
    export_model: keras.Model,
    export_images: np.ndarray,
    export_formats: list[str],
    shared_folder: Path,
) -> list[Artifact]:
    """The artifacts of `export_model` in `export_formats`; nobody may change them."""
    folder, listed = shared_folder / "exported", shared_folder / "exported.pickle"
    with FileLock(shared_folder / "exported.lock"):
        if not listed.exists():
            made = export(export_model, folder, export_formats, export_images)
            listed.write_bytes(pickle.dumps(made))
        return pickle.loads(listed.read_bytes())


@pytest.fixture(scope="session")
def export_paths(exports: list[Artifact]) -> dict[str, Path]:
    return {artifact.format: artifact.path for artifact in exports}
