"""Forecasts come from what was recorded, scaled by what is left to do."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tfprune.pipeline.outlook import Outlook, Probe
from tfprune.pipeline.plan import plan
from tfprune.pipeline.store import SCRATCH, partial
from tfprune.report import read_run


@pytest.fixture
def tasks(tiny_pipeline, tmp_path):
    return plan(tiny_pipeline, tmp_path, "images")


def test_a_probe_is_scaled_by_epochs_and_by_the_macs_that_are_kept(tiny_pipeline, tmp_path, tasks):
    outlook = Outlook(tiny_pipeline, tmp_path, Probe(10.0, 1000))
    seconds = {task.describe(tiny_pipeline): outlook.seconds(task) for task in tasks}
    assert seconds["dense, seed 0: dense (train)"] == 20
    assert seconds["both, seed 0: learn (learn)"] == 10
    # Two epochs at half of the MACs.
    assert seconds["both, seed 0: sparse (prune)"] == 10
    dense, delivery = tasks[:2]
    assert outlook.bytes(dense) > 4000
    assert outlook.bytes(delivery) > (4 + 4 + 4 + 1) * 1000


def test_what_was_recorded_says_more_than_a_probe(tiny_pipeline, tiny_run):
    outlook = Outlook(tiny_pipeline, tiny_run, Probe(1e6, 1000))
    other_seed = plan(tiny_pipeline, tiny_run, "images", seeds=[7])
    recorded = next(
        step.record
        for delivery in read_run(tiny_run).deliveries
        for step in delivery.steps
        if step.record["step"] == "dense"
    )
    assert outlook.seconds(other_seed[0]) == 2 * recorded["seconds_per_epoch"]


def test_a_finished_task_takes_nothing(tiny_pipeline, tiny_run):
    record = read_run(tiny_run).record
    outlook = Outlook(tiny_pipeline, tiny_run)
    for task in plan(tiny_pipeline, tiny_run, record["data_sha256"]):
        assert task.finished
        assert outlook.seconds(task) == outlook.bytes(task) == 0


def test_epochs_that_are_done_count_no_more_and_are_told(tiny_pipeline, tmp_path, tasks):
    scratch = partial(tasks[0].folder, tasks[0].identity) / SCRATCH
    scratch.mkdir(parents=True)
    np.savez(scratch / "training.npz", **{"history/epoch": np.array([1])})
    outlook = Outlook(tiny_pipeline, tmp_path, Probe(10.0, 1000))
    assert outlook.seconds(tasks[0]) == 10
    assert outlook.table(tasks).state[0] == "goes on after epoch 1"


def test_a_damaged_record_makes_no_forecast_fail(tiny_pipeline, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    for path in run.glob("steps/*/record.json"):
        path.write_text("{")
    assert Outlook(tiny_pipeline, run).knows_nothing
