"""Trade-offs show every artifact and name the front."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tfprune.figures import COSTS, figure
from tfprune.report.html.tradeoff import formats, pareto_front, tradeoff
from tfprune.report.tables import spread

SIZE, MACS, LATENCY = map(figure, COSTS)
# Few distinct values, so that ties are common.
number = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf, math.nan]) | st.floats()
points = st.lists(st.tuples(number, number), max_size=30)


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


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(points)
def test_no_member_is_beaten_and_every_other_point_is(pairs):
    front = pareto_front([cost for cost, _ in pairs], [value for _, value in pairs])
    for point, member in zip(pairs, front, strict=True):
        if any(math.isnan(each) for each in point):
            assert not member
        else:
            assert member == (not any(_beats(other, point) for other in pairs))


@given(points.filter(lambda pairs: any(not any(map(math.isnan, pair)) for pair in pairs)))
def test_some_point_is_always_on_the_front(pairs):
    assert pareto_front([cost for cost, _ in pairs], [value for _, value in pairs]).any()


def test_equal_points_are_members_together():
    assert pareto_front([1, 1, 2], [0.5, 0.5, 0.5]).tolist() == [True, True, False]


def test_nothing_has_an_empty_front():
    front = pareto_front([], [])
    assert front.dtype == np.bool_
    assert front.shape == (0,)
