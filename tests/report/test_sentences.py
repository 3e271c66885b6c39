"""Sentences say what the figures say."""

from __future__ import annotations

import pytest

from tests.report.task_figures import ERROR, MAE
from tfprune.figures import ACCURACY
from tfprune.report.sentences import (
    describe_against,
    describe_change,
    describe_removal,
    duration,
    percent,
    timestamp,
)


@pytest.mark.parametrize(
    ("by", "value", "base", "said"),
    [
        (ACCURACY, 0.90576, 0.91, "loses 0.42 points"),
        (ACCURACY, 0.92, 0.91, "gains 1.00 points"),
        (ACCURACY, 0.90996, 0.91, "keeps the accuracy"),
        (ACCURACY, float("nan"), 0.91, "has an unknown accuracy"),
        (MAE, 43.5, 43.25, "is 0.25 mm worse"),
        (MAE, 43.25, 43.5, "is 0.25 mm better"),
        (MAE, 43.250001, 43.25, "keeps the MAE"),
        (MAE, 0.00012, 0.0001, "is 0.0000200 mm worse"),
        (ERROR, 0.0942, 0.09, "is 0.42 points worse"),
        (ERROR, 0.08, 0.09, "is 1.00 points better"),
    ],
)
def test_a_change_is_a_loss_or_a_gain(by, value, base, said):
    assert describe_change(value, base, by) == said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(0.2731, "27.3%"), (0.0491, "4.91%"), (1.0, "100%"), (12.4, "1,240%"), (float("nan"), "")],
)
def test_a_ratio_has_three_digits(ratio, said):
    assert percent(ratio) == said


def test_a_variant_is_told_against_the_first():
    first = {"accuracy": 0.9, "bytes_gzip": 1000, "macs": 200, "latency_ms": float("nan")}
    row = {"accuracy": 0.895, "bytes_gzip": 250, "macs": 200, "latency_ms": 1.0}
    assert (
        describe_against(row, first)
        == "loses 0.50 points at 25.0% of the compressed size and 100% of the MACs"
    )


def test_what_a_removal_found():
    record = {
        "removed": {"conv1": 3, "conv2": 4},
        "validation_accuracy": {"before": 0.9, "removed": 0.4, "recalibrated": 0.7},
    }
    assert describe_removal(record) == (
        "7 channels of 2 layers went; validation accuracy 90.0% before, 40.0% without them, "
        "70.0% with BatchNorm's statistics taken anew"
    )
    assert describe_removal({}) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.94, "0.9 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (185, "3 min 5 s"),
        (7620, "2 h 7 min"),
        (float("nan"), ""),
    ],
)
def test_times_can_be_grasped(value, said):
    assert duration(value) == said


def test_a_session_without_an_end_is_told_so():
    assert timestamp("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04:05 UTC"
    assert timestamp(None) == "killed or going on"
