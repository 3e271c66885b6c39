"""Every metric of Keras is known, with the direction that Keras itself knows."""

from __future__ import annotations

import inspect

import keras
import pytest

from tfprune.tasks import METRICS, metric
from tfprune.tasks.metrics import plain, top_count

# "Accuracy" leads to the form that fits the task.
_NOT_FIGURES = {"Metric", "Mean", "Sum", "MeanMetricWrapper", "Accuracy"}
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
            if direction is not None:
                known += 1
                assert row.better == direction, row.name
    assert known > 20


def test_names_lead_to_one_row() -> None:
    names = [
        name
        for row in METRICS
        for name in {plain(each) for each in (row.name, row.keras, *row.aliases) if each}
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.5, "50.00%"),
        ("mean_iou", 0.61234, "61.23%"),
        ("mae", 1.5, "1.5"),
        ("mae", 1.5e-6, "0.0000015"),
        ("mape", 12.5, "12.50 percent"),
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
    assert row.figure("%").text(12.5) == "12.5 percent"


def test_top_counts() -> None:
    assert [
        top_count(name) for name in ("top_5_accuracy", "top3", "top_k_categorical_accuracy")
    ] == [
        5,
        3,
        None,
    ]
