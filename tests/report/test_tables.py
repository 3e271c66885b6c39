"""Tables say what was measured, in whichever form."""

from __future__ import annotations

import io
import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tfprune.errors import TfpruneError
from tfprune.files import strict_json
from tfprune.report import (
    comparison,
    layer_sparsity,
    over_seeds,
    per_layer,
    read_run,
    render,
)
from tfprune.report.tables import confidence_interval, spread


def _table(accuracies: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": "r",
                "variant": "dense",
                "seed": seed,
                "artifact": "tflite",
                "accuracy": accuracy,
                "loss": 0.5,
                "macs": 1_500_000,
                "bytes": 2048,
                "latency_ms": 0.25,
            }
            for seed, accuracy in enumerate(accuracies)
        ]
    )


def test_several_seeds_become_mean_and_sample_deviation():
    summary = over_seeds(_table([0.90, 0.92, 0.94]))
    assert summary.to_dict("records") == [
        {
            "variant": "dense",
            "artifact": "tflite",
            "seeds": 3,
            "accuracy": "92.00% ± 2.00%",
            "loss": 0.5,
            "macs": 1_500_000,
            "bytes": 2048,
            "latency_ms": 0.25,
        }
    ]


def test_one_seed_is_shown_as_it_is():
    assert render(over_seeds(_table([0.9])), "table") == (
        "variant  artifact  accuracy   loss    MACs     size   latency\n"
        "dense    tflite      90.00%  0.500  1.50 M  2.0 KiB  0.250 ms\n"
    )


def test_markdown_is_a_table_of_github():
    lines = render(over_seeds(_table([0.9])), "markdown").splitlines()
    assert (
        lines[1].replace("-", "") == "|:|:|:|:|:|:|:|".replace(":|:|:", ":|:|:") or "|" in lines[1]
    )
    assert lines[2].split("|")[3].strip() == "90.00%"


def test_csv_and_json_keep_every_digit():
    table = _table([0.9123456789])
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(render(table, "csv"))), table)
    assert json.loads(render(table, "json"))[0]["accuracy"] == 0.9123456789


def test_the_table_has_a_row_a_variant_and_artifact_the_dense_first(tiny_run):
    table = comparison(read_run(tiny_run))
    assert list(dict.fromkeys(table.variant)) == ["dense", "sparse", "both"]
    assert list(table.artifact[:4]) == ["keras", "savedmodel", "tflite", "tflite-int8"]
    assert not table.isna().to_numpy().any()
    assert (table.nonzero <= table.parameters).all()
    assert dict(zip(table.variant, table.epochs, strict=True)) == {
        "dense": 2,
        "sparse": 4,
        "both": 5,
    }


def test_sparsity_per_layer_has_a_column_a_variant(tiny_run):
    wide = per_layer(layer_sparsity(read_run(tiny_run)))
    assert list(wide.columns) == ["layer", "weight", "dense", "sparse", "both"]
    assert list(wide.layer) == ["block1_conv1", "block2_conv1", "logits", "total"]
    assert wide["dense"][0] == "0.0% of 36"
    assert wide["sparse"][0] == "75.0% of 36"


def test_the_report_states_table_data_command_and_machine(tiny_run):
    text = (tiny_run / "report.md").read_text()
    for needed in (
        "| dense     | keras",
        "## Sparsity per layer",
        "- **both**: dense (train: epochs 2, learning_rate 0.05) → learn",
        "digits, embedded in scikit-learn",
        "- command: ",
        "- commit: ",
        "cores",
    ):
        assert needed in text
    exact = pd.read_csv(tiny_run / "comparison.csv")
    pd.testing.assert_frame_equal(exact, comparison(read_run(tiny_run)))


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(TfpruneError) as caught:
        comparison(read_run(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} holds no finished variant: give the directory of a run, such as "
        "saved_models/digits, or run its pipeline first"
    )


def test_a_damaged_record_is_one_line(tiny_run, tmp_path):
    folder = tmp_path / "dense" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")
    with pytest.raises(TfpruneError, match=r"record\.json is damaged: delete it and run again"):
        comparison(read_run(tmp_path))


def _seeds(**columns: list[float]) -> pd.DataFrame:
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
    table = _seeds(
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
    table = _seeds(accuracy=[0.9, 0.94, 0.5])
    table.loc[2, "variant"] = "other"
    assert over_seeds(table)["accuracy"].tolist() == ["92.00% ± 2.83%", "50.00%"]


def test_spread_keeps_rows_in_order_and_missing_figures_missing():
    table = _seeds(accuracy=[0.9, 0.94, 0.5], latency_ms=[math.nan] * 3)
    table.loc[2, "variant"] = "a"
    this = spread(table)
    assert this.means["variant"].tolist() == ["dense", "a"]
    assert this.seeds.tolist() == [2, 1]
    assert this.means["latency_ms"].isna().all()


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_the_interval_is_wilsons(counts):
    images, right = counts
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert confidence_interval(right / images, images) == pytest.approx(tuple(expected), abs=1e-6)


def test_all_right_is_no_proof_of_perfection():
    low, high = confidence_interval(1.0, 100)
    assert (round(low, 3), high) == (0.963, 1.0)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=4))
def test_a_mean_is_of_all_seeds_or_is_not_known(accuracies):
    """A seed whose figure is NaN does not drop out of the mean, as a seed to come does."""
    table = _table(accuracies)
    planned = table.iloc[[0]].assign(seed=9, accuracy=None, loss=None, macs=None, bytes=None)
    planned = planned.assign(latency_ms=None)
    whole = pd.concat([table, planned.astype(dict.fromkeys(table.columns[4:], float))])
    mean = spread(whole).means["accuracy"].item()
    wanted = math.nan if any(map(math.isnan, accuracies)) else sum(accuracies) / len(accuracies)
    assert mean == pytest.approx(wanted, nan_ok=True)
    assert spread(whole).means["loss"].item() == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_is_strict_whatever_a_figure_is(value):
    """NaN is no JSON: other readers than Python's refuse the whole document."""
    text = render(_table([value, 0.5]), "json")
    assert [row["accuracy"] for row in json.loads(text, parse_constant=pytest.fail)] == [None, 0.5]
    nested = strict_json({"figures": [value, {"loss": value}], "name": "NaN"})
    found = json.loads(nested, parse_constant=pytest.fail)
    assert found == {"figures": [None, {"loss": None}], "name": "NaN"}
