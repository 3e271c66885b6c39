"""What a model is compiled with, and what its file keeps of it."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from tfprune.model.compiled import classifies, is_plain, kept_by_file, settings_of


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


def test_what_a_file_cannot_keep_is_named() -> None:
    assert kept_by_file(net(loss="mse", metrics=["mae", mine])) == (None, "mine")
    assert kept_by_file(net(loss=keras.losses.Huber(delta=2.0))) == (None, "Huber")
    assert kept_by_file(net(loss="categorical_crossentropy")) == (None, None)
