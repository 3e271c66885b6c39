"""Every metric of Keras is known, with the direction that Keras itself knows."""

from __future__ import annotations

import inspect

import keras
import pytest

from tfprune.tasks import METRICS, metric
from tfprune.tasks.metrics import plain, top_count

_NOT_FIGURES = {"Metric", "Mean", "Sum", "MeanMetricWrapper"}
CLASSES = {
    name: value
    for name, value in vars(keras.metrics).items()
    if inspect.isclass(value) and issubclass(value, keras.metrics.Metric)
}


@pytest.mark.parametrize("name", sorted(set(CLASSES) - _NOT_FIGURES))
def test_every_metric_of_keras_has_a_row(name: str) -> None:
    row = metric(name)
    assert row is not None
    assert row.keras == name
    assert row.better in ("higher", "lower")
    # Keras' own names lead to the same row.
    snake = plain(name)
    assert metric(snake) is row


def test_directions_are_those_of_keras() -> None:
    given = {
        "MeanIoU": {"num_classes": 2},
        "IoU": {"num_classes": 2, "target_class_ids": [0]},
        "OneHotIoU": {"num_classes": 2, "target_class_ids": [0]},
        "OneHotMeanIoU": {"num_classes": 2},
        "PrecisionAtRecall": {"recall": 0.5},
        "RecallAtPrecision": {"precision": 0.5},
        "SensitivityAtSpecificity": {"specificity": 0.5},
        "SpecificityAtSensitivity": {"sensitivity": 0.5},
    }
    known = 0
    for row in METRICS:
        if row.keras:
            made = CLASSES[row.keras](**given.get(row.keras, {}))
            direction = {"up": "higher", "down": "lower"}.get(getattr(made, "_direction", None))
            # Keras calls fewer zeros better; that is so for those taken for ones.
            if direction is not None:
                known += 1
                assert row.better == direction, row.name
    assert known > 20


def test_names_lead_to_one_row() -> None:
    names = [plain(each) for row in METRICS for each in {row.name, row.keras, *row.aliases} if each]
    twice = {name for name in names if names.count(name) > 1}
    # One row may be spelt alike in two ways.
    assert all(
        sum(name in map(plain, (row.name, row.keras, *row.aliases)) for row in METRICS) == 1
        for name in twice
    )


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.5, "50.00%"),
        ("mean_iou", 0.61234, "61.23%"),
        ("mae", 1.5, "1.5"),
        ("mae", 1.5e-6, "1.5e-06"),
        ("mape", 12.5, "12.50 %"),
        ("auc", 0.9, "0.900"),
        ("top_5_accuracy", 0.25, "25.00%"),
    ],
)
def test_a_metric_is_written_with_its_unit(name: str, value: float, text: str) -> None:
    row = metric(name)
    assert row is not None
    assert row.figure().text(value) == text


def test_a_unit_of_ones_own_scales_nothing() -> None:
    row = metric("mae")
    assert row is not None
    assert row.figure("%").text(12.5) == "12.5 %"


def test_top_counts() -> None:
    assert [
        top_count(name) for name in ("top_5_accuracy", "top3", "top_k_categorical_accuracy")
    ] == [
        5,
        3,
        None,
    ]
