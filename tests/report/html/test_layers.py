"""What is left of a layer is told against the first variant."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.report.fake import CHAINS, fake_run
from tfprune.report import layer_sparsity, read_run
from tfprune.report.html.layers import bars, densities


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    chains = CHAINS | {"both": ["dense", "slim", "sparse"]}
    run = fake_run(tmp_path_factory.mktemp("density"), chains, seeds=(0, 1))
    return densities(layer_sparsity(read_run(run)))


def test_kernels_come_in_the_models_order_the_total_last(table):
    assert table[table["variant"] == "dense"]["layer"].tolist() == [
        "conv1",
        "conv2",
        "logits",
        "total",
    ]


@pytest.mark.parametrize(
    ("variant", "density", "kept", "left"),
    [
        ("dense", 1, 1, 1),
        ("sparse", 0.2, 1, 0.2),
        ("slim", 1, 0.5, 0.5),
        ("both", 0.2, 0.5, 0.1),
    ],
)
def test_density_kept_and_left(table, variant, density, kept, left):
    total = table[(table["variant"] == variant) & (table["layer"] == "total")].iloc[0]
    assert (total.density, total.kept, total.left) == pytest.approx((density, kept, left), abs=2e-3)


def test_a_layer_the_first_variant_lacks_is_compared_with_nothing():
    layers = pd.DataFrame(
        {
            "variant": ["dense", "dense", "other", "other", "other"],
            "layer": ["a", "total", "a", "new", "total"],
            "weight": ["kernel", "", "kernel", "kernel", ""],
            "size": [10, 10, 10, 5, 15],
            "zeros": [0, 0, 5, 0, 5],
        }
    )
    found = densities(layers).set_index(["variant", "layer"])
    assert found.loc[("other", "new")].isna().tolist() == [False, False, False, True, True]
    assert "Density of other" in bars(densities(layers), "other", "s")


def test_bars_are_two_where_channels_went(table):
    sparse, slim = (bars(table, variant, variant) for variant in ("sparse", "slim"))
    assert sparse.count("fill: var(--series-4)") == 0
    assert slim.count("fill: var(--series-4)") == 4
    assert sparse.count("fill: var(--accent)") == slim.count("fill: var(--accent)") == 4
