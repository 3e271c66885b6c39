"""What devices tell of a run's artifacts: tables, the page, Markdown and budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.fake import fake_run
from tfprune.errors import UsageError
from tfprune.report import judge, read_run, write_report
from tfprune.report.budgets import Budget, judged_table, mistakes
from tfprune.report.devices import device_notes, device_summary, device_table

CYCLES = {"dense": 20_000, "sparse": 10_000, "slim": 8_000}


def board(variant: str, form: str, seed: int) -> dict[str, Any]:
    """A device that runs TFLite and no Keras file, and does not know what `sparse` is."""
    if form == "keras":
        return {"refusal": "it is a Keras file: export it as tflite"}
    figures = {"cycles": CYCLES[variant] + 100 * seed, "energy": 0.5}
    share = {"npu_share": 0.75} if variant != "sparse" else {}
    return {"figures": figures | share, "estimated": True, "settings": {"clock": "500 MHz"}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    devices = [
        {"name": "command", "label": "board", "command": "bench {file}", "told": board},
        {"name": "cpu", "told": lambda *_: {"figures": {"device_ms": 2.0}}},
    ]
    return fake_run(tmp_path / "run", seeds=(0, 1), devices=devices)


def test_every_artifact_has_a_row_a_seed_and_device(run):
    table = device_table(read_run(run))
    assert len(table) == 3 * 2 * 2 * 2
    row = table[(table.variant == "slim") & (table.seed == 1) & (table.device == "board")]
    assert row["cycles"].dropna().tolist() == [8_100]
    assert row["device_ms"].isna().all()
    assert table["variant"].drop_duplicates().tolist() == list(CYCLES)


def test_people_see_means_shares_of_the_first_variant_and_what_is_an_estimate(run):
    summary = device_summary(device_table(read_run(run)))
    shown = summary[summary.artifact == "tflite"].set_index(["variant", "device"])
    place = ("sparse", "board, estimated")
    assert shown.loc[("dense", place[1]), "cycles"] == "20,050 ± 71"
    assert shown.loc[place, "cycles"] == "10,050 ± 71 (50%)"
    # Nobody knows it, and a share has no share.
    assert shown.loc[place, "on the NPU"] == ""
    assert shown.loc[("slim", place[1]), "on the NPU"] == "75.0%"
    assert shown.loc[("slim", "cpu"), "time"] == "2.000 ms (100%)"


def test_refusals_and_settings_are_said_once(run):
    notes = device_notes(read_run(run))
    assert notes[0] == (
        "dense as keras on board cannot be measured: it is a Keras file: export it as tflite"
    )
    assert len(notes) == 4 and notes[-1] == "board: clock 500 MHz"


def test_the_report_has_a_section_and_a_table_with_every_digit(run):
    page = write_report(run).read_text()
    assert '<section id="devices"' in page and "10,050 ± 71 (50%)" in page
    assert "An estimate is that of a compiler" in page
    markdown = (run / "report.md").read_text()
    assert "## On devices" in markdown and "board, estimated" in markdown
    exact = pd.read_csv(run / "devices.csv")
    assert exact["cycles"].max() == 20_100


def test_a_run_without_devices_has_neither(tmp_path):
    directory = fake_run(tmp_path / "run")
    assert 'id="devices"' not in write_report(directory).read_text()
    assert "On devices" not in (directory / "report.md").read_text()
    assert not (directory / "devices.csv").exists()


def test_what_an_earlier_pipeline_measured_is_left_out(run):
    read = read_run(run)
    record = read.record["pipeline"]
    (run / "run.json").write_text(
        (run / "run.json").read_text().replace('"label": "board"', '"label": "other"')
    )
    assert record["devices"][0]["label"] == "board"
    assert set(device_table(read_run(run))["device"]) == {"cpu"}


def verdicts(run: Path, **rule: Any) -> list[Any]:
    read = read_run(run)
    return judge(Budget.model_validate({"rules": [rule]}), judged_table(read), by=read.figure)


def test_a_budget_limits_what_a_device_tells(run):
    limit = {"device": "board", "artifact": "tflite", "cycles": {"max": 9_000}}
    found = {each.variant: each for each in verdicts(run, **limit)}
    assert {name: each.outcome for name, each in found.items()} == {
        "dense": "broken",
        "sparse": "broken",
        "slim": "kept",
    }
    assert found["slim"].value == 8_050
    assert "slim tflite: cycles on board 8,050" in found["slim"].sentence
    assert found["slim"].source == "devices/board/seed-*/record.json"


def test_it_compares_with_the_same_device(run):
    half = {"variant": "sparse", "artifact": "tflite", "against": "dense"}
    (found,) = verdicts(run, device="board", **half, cycles={"max_ratio": 0.51})
    assert (found.outcome, found.reference) == ("kept", 20_050)
    (found,) = verdicts(run, device="board", **half, cycles={"max_ratio": 0.5})
    assert found.outcome == "broken"


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"device": "bord", "cycles": {"max": 1}}, "not a device of the run: did you mean 'board'"),
        ({"device": "cpu", "cycles": {"max": 1}}, "see what devices.csv says of cpu"),
        (
            {"device": "board", "artifact": "keras", "cycles": {"max": 1}},
            "see what devices.csv says of board",
        ),
    ],
)
def test_what_is_not_told_is_missing_and_never_kept(run, rule, reason):
    found = verdicts(run, **rule)
    assert {each.outcome for each in found if reason in each.reason} == {"missing"}
    assert all(each.outcome == "missing" for each in found)


def test_a_rule_for_all_formats_is_for_those_that_the_device_runs(tmp_path):
    told = lambda variant, form, seed: {"figures": {"device_ms": 1.0}}  # noqa: E731
    android = {"name": "android", "benchmark_model": "bench", "told": told}
    directory = fake_run(tmp_path / "run", devices=[android])
    found = verdicts(directory, device="android", device_ms={"max": 2})
    assert {each.artifact for each in found} == {"tflite"}
    assert {each.outcome for each in found} == {"kept"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"cycles": {"max": 1}}, "limits cycles, which a device tells: say device = NAME"),
        ({"device": "cpu", "accuracy": {"min": 0}}, "nothing that a device tells is limited"),
    ],
)
def test_a_rule_and_its_device_belong_together(rule, said):
    with pytest.raises(ValueError, match=said):
        Budget.model_validate({"rules": [rule]})


def test_a_device_that_the_pipeline_lacks_is_a_mistake_of_the_budget():
    budget = Budget.model_validate({"rules": [{"device": "cpu", "device_ms": {"max": 1}}]})
    planned = {"dense": ["tflite"]}
    assert list(mistakes(budget, planned, ["cpu"])) == []
    (said,) = mistakes(budget, planned)
    assert "the pipeline has no [[devices]]" in said


def test_a_missing_artifact_is_missing_on_its_device_too(run):
    read = read_run(run)
    read.record["pipeline"]["variants"]["later"] = []
    table = judged_table(read)
    budget = Budget.model_validate({"rules": [{"device": "board", "cycles": {"max": 1e9}}]})
    outcomes = {each.variant: each.outcome for each in judge(budget, table)}
    assert outcomes["later"] == "missing"


def test_an_unknown_device_in_a_record_is_one_line(run):
    text = (run / "run.json").read_text().replace('"name": "cpu"', '"name": "cpux"')
    (run / "run.json").write_text(text)
    with pytest.raises(UsageError, match="device 'cpux' is unknown"):
        judged_table(read_run(run))
