"""What a model is compiled with, and what its file keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfprune.model.compiled import classifies, is_plain, kept_by_file, restore, settings_of
from tfprune.model.loading import load


def net(units: int = 3, **settings: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, name="out")])
    if settings:
        model.compile("adam", **settings)
    return model


def mine(y: Any, y_pred: Any) -> Any:
    return keras.ops.mean(y - y_pred)


SPARSE, ONE_HOT = keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"loss": "sparse_categorical_crossentropy"}, True),
        ({"loss": {"out": "categorical_crossentropy"}}, True),
        ({"loss": [keras.losses.sparse_categorical_crossentropy]}, True),
        ({"loss": SPARSE(from_logits=True, name="mine")}, True),
        ({"loss": SPARSE(ignore_class=2)}, False),
        ({"loss": ONE_HOT(label_smoothing=0.1)}, False),
        ({"loss": "mse"}, False),
        ({"loss": mine}, False),
        ({"loss": "sparse_categorical_crossentropy", "units": 1}, False),
    ],
)
def test_a_classifier_is_known_by_its_loss(settings: dict[str, Any], wanted: bool) -> None:
    model = net(**settings)
    assert classifies(model, settings_of(model)) == wanted


def test_maps_are_not_plain_classification() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 1)])
    assert not classifies(model, settings_of(model))
    # Nothing is known of it, so nothing is kept.
    assert is_plain(model)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert not is_plain(model)


def test_a_file_gives_its_task_back(tmp_path: Path) -> None:
    model = net(loss=keras.losses.MeanSquaredError(), metrics=["mae"], loss_weights=2.0)
    x, y = np.ones((4, 2)), np.ones((4, 3))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras")
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    assert isinstance(loaded.optimizer, keras.optimizers.Adam)
    assert int(loaded.optimizer.iterations) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
        {"loss": mine},
        {"loss": "mse", "metrics": [mine]},
    ],
)
def test_plain_classifiers_and_what_is_not_keras_own_come_back_uncompiled(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    net(**settings).save(tmp_path / "net.keras")
    assert not load(tmp_path / "net.keras").compiled


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"loss": "no_such_loss"},
        {"loss": {"module": "somewhere", "class_name": "Loss", "config": {}}},
        {"loss": {"module": "keras.losses", "class_name": "NoLoss", "config": {}}},
        {"loss": {"module": "keras.losses", "class_name": "Huber", "config": {"no": 1}}},
        {"loss": {"module": "builtins", "class_name": "function", "config": "eval"}},
        {"loss": "mse", "metrics": [{"class_name": "__lambda__", "config": {"value": "x"}}]},
    ],
)
def test_a_config_of_something_else_is_left_alone(config: Any) -> None:
    model = net()
    restore(model, config)
    assert not model.compiled


def test_what_a_file_cannot_keep_is_named() -> None:
    assert kept_by_file(net(loss="mse", metrics=["mae", mine])) == (None, "mine")
    assert kept_by_file(net(loss=keras.losses.Huber(delta=2.0))) == (None, "Huber")
    assert kept_by_file(net(loss="categorical_crossentropy")) == (None, None)
