"""The figures of a level are those of its files; seeds are told from the lowest to the highest."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.report.fake import fake_run, stop_early
from tfprune.report import read_run, tickets, tickets_over_seeds, tickets_with_units, write_report

CHAINS = {
    "dense": ["dense"],
    "slim": ["dense", "slim"],
    "ticket-2": ["dense", "cut-1", "retrain-1", "cut-2", "retrain-2"],
    "ticket-1": ["dense", "cut-1", "retrain-1"],
    "reinit-1": ["dense", "cut-1", "retrain-1", "reinit-1"],
}
LEVELS = {"dense": 0, "ticket-1": 1, "ticket-2": 2, "reinit-1": 1}
# Where the validation loss is lowest, by the step that trains last.
BEST = {"dense": 3, "retrain-1": 2, "retrain-2": 4, "reinit-1": 1}


def history(step: str, seed: int) -> dict[str, list[float]] | None:
    if step.startswith(("cut", "slim")):
        return None
    best = BEST[step]
    return {
        "epoch": [1.0, 2.0, 3.0, 4.0],
        "val_loss": [0.1 + abs(epoch - best) for epoch in range(1, 5)],
        "val_accuracy": [0.5 + 0.1 * epoch + 0.01 * seed for epoch in range(1, 5)],
    }


def fake_lottery(directory: Path, *, seeds=(0, 1), chains=CHAINS, history=history, **options):
    """A run whose kernels have 1,000 weights, of which 0.8^level live; biases have 10 and none."""
    fake_run(directory, chains, seeds=seeds, history=history, **options)
    for path in directory.glob("steps/cut-*/record.json"):
        record = json.loads(path.read_text())
        record["specification"]["kind"] = "prune-once"
        path.write_text(json.dumps(record))
    for path in directory.glob("*/seed-*/sparsity.csv"):
        level = sum(step.startswith("cut") for step in chains[path.parts[-3]])
        zeros = 1000 - round(1000 * 0.8**level)
        path.write_text(
            "layer,weight,size,zeros,sparsity\n"
            f"conv,kernel,400,0,0.0\nlogits,kernel,600,{zeros},{zeros / 600}\n"
            f"logits,bias,10,10,1.0\ntotal,,1010,{zeros + 10},{(zeros + 10) / 1010}\n"
        )
    return directory


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    return tickets(read_run(fake_lottery(tmp_path)))


def test_rows_are_the_levels_and_what_they_begin_with(table):
    assert list(zip(table["method"], table["level"], table["seed"], strict=True)) == [
        ("dense", 0, 0),
        ("dense", 0, 1),
        ("ticket", 1, 0),
        ("ticket", 1, 1),
        ("ticket", 2, 0),
        ("ticket", 2, 1),
        ("reinit", 1, 0),
        ("reinit", 1, 1),
    ]


def test_figures_are_those_of_the_files(table, tmp_path):
    for row in table.to_dict("records"):
        name = f"{row['method']}-{row['level']}" if row["level"] else row["method"]
        folder = tmp_path / name / f"seed-{row['seed']}"
        record = json.loads((folder / "record.json").read_text())
        assert row["artifact"] == "keras"
        assert row["accuracy"] == record["artifacts"][0]["accuracy"]
        kernels = pd.read_csv(folder / "sparsity.csv").query("weight == 'kernel'")
        assert row["density"] == 1 - kernels["zeros"].sum() / 1000
        assert row["density"] == pytest.approx(0.8 ** row["level"], abs=5e-4)
        last = tmp_path / "steps" / record["steps"][-1] / "record.json"
        learned = json.loads(last.read_text())["history"]
        best = int(row["early_stop_epoch"])
        assert learned["val_loss"][best - 1] == min(learned["val_loss"])
        assert best == BEST[CHAINS[name][-1]]
        assert row["early_stop_val_accuracy"] == learned["val_accuracy"][best - 1]
        assert row["val_accuracy"] == learned["val_accuracy"][-1]


def test_the_epoch_is_the_one_the_history_names(tmp_path):
    """A training that was rewound to epoch 2 begins at its third."""

    def rewound(step, seed):
        told = history(step, seed)
        return told and {**told, "epoch": [3.0, 4.0, 5.0, 6.0]}

    table = tickets(read_run(fake_lottery(tmp_path, history=rewound)))
    assert set(table["early_stop_epoch"]) == {BEST[step] + 2 for step in BEST}


def test_after_an_early_stopping_the_value_is_that_of_the_best_epoch(tmp_path):
    stop_early(fake_lottery(tmp_path), "retrain-2", best_epoch=2)
    rows = tickets(read_run(tmp_path)).set_index(["method", "level", "seed"])["val_accuracy"]
    assert rows["ticket", 2, 0] == history("retrain-2", 0)["val_accuracy"][1]
    assert rows["ticket", 2, 1] == history("retrain-2", 1)["val_accuracy"][-1]


def test_a_run_without_rounds_has_no_rows_and_no_files(tmp_path):
    write_report(fake_run(tmp_path))
    assert not len(tickets(read_run(tmp_path)))
    assert not list(tmp_path.glob("tickets.*"))


def test_what_the_pipeline_no_longer_has_is_left_out(tmp_path):
    path = fake_lottery(tmp_path) / "run.json"
    record = json.loads(path.read_text())
    del record["pipeline"]["variants"]["ticket-2"]
    path.write_text(json.dumps(record))
    table = tickets(read_run(tmp_path))
    assert table["level"].max() == 1
    assert set(table["method"]) == {"dense", "ticket", "reinit"}


def test_a_sweep_of_rounds_is_a_method_a_value(tmp_path):
    chains = {
        f"ticket-1-share-0.{value}": ["dense", f"cut-0.{value}", "retrain-1"] for value in (1, 2)
    }
    table = tickets(read_run(fake_lottery(tmp_path, chains={"dense": ["dense"], **chains})))
    assert set(table["method"]) == {"dense", "ticket-share-0.1", "ticket-share-0.2"}


def test_what_was_not_recorded_is_missing_and_shown_as_nothing(tmp_path):
    table = tickets(read_run(fake_lottery(tmp_path, history=lambda step, seed: None)))
    assert table[["early_stop_epoch", "early_stop_val_accuracy", "val_accuracy"]].isna().all(None)
    shown = tickets_with_units(tickets_over_seeds(table))
    assert set(shown["early-stop epoch"]) == {""}


def test_seeds_are_a_mean_between_the_lowest_and_the_highest(table):
    over = tickets_over_seeds(table)
    assert list(over["method"]) == ["dense", "ticket", "ticket", "reinit"]
    assert list(over["seeds"]) == [2] * 4
    for row in over.to_dict("records"):
        rows = table[(table["method"] == row["method"]) & (table["level"] == row["level"])]
        for figure in ("accuracy", "early_stop_epoch", "val_accuracy"):
            assert row[figure] == pytest.approx(rows[figure].mean())
            assert row[f"{figure}_min"] == rows[figure].min()
            assert row[f"{figure}_max"] == rows[figure].max()


def test_for_people_a_range_stands_only_where_there_is_one(table):
    first = tickets_with_units(tickets_over_seeds(table)).iloc[0].to_dict()
    assert first == {
        "method": "dense",
        "level": "0",
        "density": "100.0%",
        "accuracy": "95.50% (95.00%\N{EN DASH}96.00%)",
        "early-stop epoch": "3",
        "val. accuracy then": "80.50% (80.00%\N{EN DASH}81.00%)",
        "val. accuracy": "90.50% (90.00%\N{EN DASH}91.00%)",
    }


def test_the_report_has_the_table_as_a_file(tmp_path):
    write_report(fake_lottery(tmp_path))
    again = pd.read_csv(tmp_path / "tickets.csv")
    pd.testing.assert_frame_equal(again, tickets(read_run(tmp_path)), check_dtype=False)
