"""Trade-offs show every artifact and name the front."""

from __future__ import annotations

import re

import pandas as pd

from tfprune.report.html.plots import COSTS, formats, tradeoff
from tfprune.report.summary import spread

SIZE, MACS, LATENCY = COSTS


def _rows(figures: dict[tuple[str, str], tuple[float, float]], seeds: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": "r",
                "variant": variant,
                "seed": seed,
                "artifact": form,
                "accuracy": accuracy + 0.01 * seed,
                "bytes_gzip": size,
                "macs": 1e6,
                "latency_ms": float("nan"),
            }
            for (variant, form), (accuracy, size) in figures.items()
            for seed in range(seeds)
        ]
    )


FIGURES = {
    ("dense", "keras"): (0.9, 4096),
    ("dense", "tflite"): (0.9, 2048),
    ("sparse", "keras"): (0.8, 1024),
    ("sparse", "tflite"): (0.7, 3000),
}


def test_the_front_is_told_in_words_the_cheapest_first():
    plot = tradeoff(spread(_rows(FIGURES)), SIZE)
    assert plot is not None
    assert plot.front == (
        "sparse as keras (1.0 KiB, 80.00%)",
        "dense as tflite (2.0 KiB, 90.00%)",
    )


def test_artifacts_that_are_alike_are_told_together():
    plot = tradeoff(spread(_rows(FIGURES)), MACS)
    assert plot is not None
    assert plot.front == ("dense as keras, tflite (1.00 M, 90.00%)",)


def test_every_artifact_is_a_point_that_says_what_it_is():
    plot = tradeoff(spread(_rows(FIGURES)), SIZE)
    assert plot is not None
    assert re.findall("<title>([^<]*)</title>", plot.svg) == [
        "dense, keras: 90.00%, 4.0 KiB",
        "sparse, keras: 80.00%, 1.0 KiB",
        "dense, tflite: 90.00%, 2.0 KiB",
        "sparse, tflite: 70.00%, 2.9 KiB",
    ]


def test_variants_are_named_in_the_figure():
    plot = tradeoff(spread(_rows(FIGURES)), SIZE)
    assert plot is not None
    for name in ("dense", "sparse"):
        assert f">{name}</text>" in plot.svg


def test_what_was_not_measured_is_not_plotted():
    assert tradeoff(spread(_rows(FIGURES)), LATENCY) is None


def test_only_seeds_have_bars():
    one, three = (tradeoff(spread(_rows(FIGURES, seeds)), SIZE) for seeds in (1, 3))
    assert one is not None
    assert three is not None
    assert "opacity: 0.5" not in one.svg
    assert three.svg.count("opacity: 0.5") == 4


def test_a_format_looks_the_same_in_every_plot():
    table = _rows(FIGURES)
    table.loc[table["artifact"] == "tflite", "latency_ms"] = 1.0
    this = spread(table)
    assert formats(this.means) == {"keras": ("o", "series-1"), "tflite": ("s", "series-2")}
    plot = tradeoff(this, LATENCY)
    assert plot is not None
    assert "var(--series-2)" in plot.svg
    assert "var(--series-1)" not in plot.svg
