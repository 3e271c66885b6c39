"""A search ends with files, their pipeline, and what it tried; killed or not, the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.searching.small import small
from tfprune import data, search
from tfprune.files import sha256
from tfprune.formats import load
from tfprune.measure import evaluate
from tfprune.pipeline import load_pipeline
from tfprune.pipeline.executors import Execution
from tfprune.pipeline.runner import run
from tfprune.report import read_run
from tfprune.searching import Found

pytest.importorskip("optuna", reason="needs the extra search")
# The first of them waits for a whole search.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("searched")


@pytest.fixture(scope="module")
def found(out) -> Found:
    return search(small(), out=out)


def _without_times(found: Found) -> list[dict]:
    return [each.to_dict() for each in found.tried]


def test_it_ends_with_the_cheapest_file_inside_the_budget(found):
    # The budget allows any loss, so the cheapest trial wins.
    assert found.winner.ratio == min(each.ratio for each in found.tried)
    assert found.is_met
    assert [path.name for path in found.files] == ["model.tflite"]
    record = json.loads((found.directory / "search.json").read_text())
    assert record["winner"]["variant"] == found.winner.variant
    assert record["said"] == found.said
    assert set(record["fronts"]) >= {"macs", "bytes", "bytes_gzip", "parameters"}


def test_the_result_says_what_the_winner_loses_on_test_data(found):
    table = found.test.set_index(["variant", "artifact"]).accuracy
    lost = 100 * (table["dense", "keras"] - table["winner", "tflite"])
    assert found.test_drop == pytest.approx(lost)
    assert "on test data it" in found.said


def test_the_file_that_is_chosen_is_the_one_that_was_judged(found):
    tried = found.directory / "trials" / found.winner.variant / "seed-0" / "model.tflite"
    assert sha256(found.files[0]) == sha256(tried)


def test_its_pipeline_makes_the_winner_again_from_nothing(found, tmp_path):
    again = run(load_pipeline(found.pipeline), out=tmp_path, only=["winner"])
    assert sha256(again / "winner" / "seed-0" / "model.tflite") == sha256(found.files[0])


def test_no_trial_but_the_winner_is_measured_on_test_data(found):
    assert {each.variant for each in read_run(found.directory).deliveries} == {"dense", "winner"}
    validation = data.load("digits", limit=96).validation
    for each in found.tried:
        folder = found.directory / "trials" / each.variant / "seed-0"
        assert evaluate(load(folder / "model.tflite"), validation).value == each.value


def test_a_finished_search_trains_nothing_again(found, out):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model*")}
    said: list[str] = []
    again = search(small(), out=out, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model*")} == before
    assert not [line for line in said if line.startswith("[")]
    assert _without_times(again) == _without_times(found)


def test_a_budget_that_cannot_be_met_says_how_near_it_came(found, out):
    # The same trials, judged by another limit.
    again = search(small(max_ratio=0.01), out=out)
    assert not again.is_met
    assert "the budget is not met" in again.said
    assert "no trial costs 0.01 of the MACs" in again.said


def test_a_killed_search_goes_on_to_the_same_end(found, tmp_path, monkeypatch):
    from tfprune.searching.proposing import Proposals

    told = Proposals.tell

    def dies(self, number, rungs):
        if self.count:
            raise KeyboardInterrupt
        told(self, number, rungs)

    monkeypatch.setattr(Proposals, "tell", dies)
    with pytest.raises(KeyboardInterrupt):
        search(small(), out=tmp_path)
    monkeypatch.setattr(Proposals, "tell", told)
    again = search(small(), out=tmp_path)
    assert again.winner == found.winner
    assert sha256(again.files[0]) == sha256(found.files[0])


def test_several_processes_find_the_same(found, tmp_path):
    again = search(small(), out=tmp_path, execution=Execution("processes", workers=2))
    assert _without_times(again) == _without_times(found)
    assert sha256(again.files[0]) == sha256(found.files[0])


def test_a_share_that_is_out_of_reach_is_told_and_ends_no_search(tmp_path):
    said: list[str] = []
    space = {"keep": [0.01, 0.01], "formats": ["tflite"], "targets": ["macs"]}
    got = search(small(space=space, trials=1, epochs=1), out=tmp_path, say=said.append)
    assert [line for line in said if "cannot be reached" in line]
    assert not got.is_met
    assert got.winner.choice.describe() == "dense, tflite"
