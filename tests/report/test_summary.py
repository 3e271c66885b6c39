"""Means say how far their seeds lie apart."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from tfprune.report.render import measured
from tfprune.report.summary import over_seeds, spread


def _table(**columns: list[float]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return pd.DataFrame(
        {
            "run": "r",
            "variant": "dense",
            "seed": range(count),
            "artifact": "tflite",
            **columns,
        }
    )


def test_every_figure_that_varies_has_its_deviation():
    table = _table(
        accuracy=[0.9, 0.94],
        loss=[0.5, 0.6],
        parameters=[1000, 1000],
        bytes_gzip=[2048, 2050],
        latency_ms=[0.2, 0.4],
    )
    assert over_seeds(table).to_dict("records") == [
        {
            "variant": "dense",
            "artifact": "tflite",
            "seeds": 2,
            "accuracy": "92.00% ± 2.83%",
            "loss": "0.550 ± 0.071",
            "parameters": 1000,
            # A deviation of 1.4 bytes is nothing at a tenth of a KiB.
            "bytes_gzip": 2049,
            "latency_ms": "0.300 ± 0.141 ms",
        }
    ]


def test_one_seed_among_several_has_no_deviation():
    table = _table(accuracy=[0.9, 0.94, 0.5])
    table.loc[2, "variant"] = "other"
    assert over_seeds(table)["accuracy"].tolist() == ["92.00% ± 2.83%", "50.00%"]


def test_spread_keeps_rows_in_order_and_missing_figures_missing():
    table = _table(accuracy=[0.9, 0.94, 0.5], latency_ms=[math.nan] * 3)
    table.loc[2, "variant"] = "a"
    this = spread(table)
    assert this.means["variant"].tolist() == ["dense", "a"]
    assert this.seeds.tolist() == [2, 1]
    assert this.means["latency_ms"].isna().all()


@pytest.mark.parametrize(
    ("column", "value", "deviation", "text"),
    [
        ("bytes", 12595.2, 409.6, "12.3 ± 0.4 KiB"),
        ("accuracy", 0.92, 0.0, "92.00% ± 0.00%"),
        ("parameters", 1234.0, 0.2, "1,234"),
        ("sparsity", 0.8, None, "80.0%"),
        ("latency_ms", math.nan, 1.0, ""),
        ("anything", 0.25, math.nan, "0.25"),
    ],
)
def test_a_figure_as_people_read_it(column, value, deviation, text):
    assert measured(column, value, deviation) == text
