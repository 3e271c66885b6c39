"""Forecasts come from what was recorded, scaled by what is left to do."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tfprune.pipeline import Pipeline
from tfprune.pipeline.forecast import Forecast, Probe
from tfprune.pipeline.jobs import plan_jobs
from tfprune.pipeline.steps import KINDS, SCRATCH
from tfprune.pipeline.store import partial
from tfprune.report import read_run
from tfprune.training import Training
from tfprune.vocabulary import FORMATS


@pytest.fixture
def jobs(tiny_pipeline, tmp_path):
    return plan_jobs(tiny_pipeline, tmp_path, "images")


def test_a_probe_is_scaled_by_epochs_and_by_the_macs_that_are_kept(tiny_pipeline, tmp_path, jobs):
    known = Forecast(tiny_pipeline, tmp_path, Probe(10.0, 1000))
    seconds = {job.describe(tiny_pipeline): known.seconds(job) for job in jobs}
    assert seconds["dense, seed 0: dense (train)"] == 20
    assert seconds["both, seed 0: learn (learn)"] == 10
    # Two epochs at half of the MACs.
    assert seconds["both, seed 0: sparse (prune)"] == 10
    dense, delivery = jobs[:2]
    assert known.bytes(dense) > 4000
    assert known.bytes(delivery) > (4 + 4 + 4 + 1) * 1000


def test_what_was_recorded_says_more_than_a_probe(tiny_pipeline, tiny_run):
    known = Forecast(tiny_pipeline, tiny_run, Probe(1e6, 1000))
    other_seed = plan_jobs(tiny_pipeline, tiny_run, "images", seeds=[7])
    recorded = next(
        step.record
        for delivery in read_run(tiny_run).deliveries
        for step in delivery.steps
        if step.record["step"] == "dense"
    )
    assert known.seconds(other_seed[0]) == 2 * recorded["seconds_per_epoch"]


def test_a_finished_task_takes_nothing(tiny_pipeline, tiny_run):
    record = read_run(tiny_run).record
    known = Forecast(tiny_pipeline, tiny_run)
    for job in plan_jobs(tiny_pipeline, tiny_run, record["data_sha256"]):
        assert job.finished
        assert known.seconds(job) == known.bytes(job) == 0


def test_epochs_that_are_done_count_no_more_and_are_told(tiny_pipeline, tmp_path, jobs):
    scratch = partial(jobs[0].folder, jobs[0].identity) / SCRATCH
    scratch.mkdir(parents=True)
    np.savez(scratch / "training.npz", **{"history/epoch": np.array([1])})
    known = Forecast(tiny_pipeline, tmp_path, Probe(10.0, 1000))
    assert known.seconds(jobs[0]) == 10
    assert known.table(jobs).state[0] == "goes on after epoch 1"


def test_a_damaged_record_makes_no_forecast_fail(tiny_pipeline, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    for path in run.glob("steps/*/record.json"):
        path.write_text("{")
    assert Forecast(tiny_pipeline, run).knows_nothing


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_a_forecast(tiny_pipeline, tmp_path, form):
    pipeline = tiny_pipeline.model_copy(update={"formats": (form,)})
    jobs = plan_jobs(pipeline, tmp_path, "images")
    table = Forecast(pipeline, tmp_path, Probe(10.0, 100_000)).table(jobs)
    delivered = table[table["kind"] == "delivery"]
    assert (delivered["bytes"] > 100_000 / 2).all()
    assert (delivered["seconds"] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_step_has_a_forecast(tmp_path, kind):
    least = {
        "prune": {"sparsity": 0.5},
        "prune-once": {"share": 0.2},
        "learn": {"strength": 0.1},
        "slim": {"latency": 0.5},
        "export": {"formats": ["tflite-int8", "c-array"]},
    }
    epochs = {"epochs": 2} if issubclass(KINDS[kind], Training) else {}
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {
                "dense": {"kind": "train", "epochs": 2},
                "it": {"kind": kind, **epochs, **least.get(kind, {})},
            },
            "variants": {"it": ["dense", "it"]},
        }
    )
    table = Forecast(pipeline, tmp_path, Probe(10.0, 1000)).table(
        plan_jobs(pipeline, tmp_path, "x")
    )
    assert (table["seconds"] > 0).all()
    assert len(table) == (3 if kind in ("quantize", "export") else 4)


def test_what_an_earlier_step_keeps_makes_the_later_ones_shorter(tmp_path):
    steps = {
        "dense": {"kind": "train", "epochs": 1},
        "slim": {"kind": "slim", "macs": 0.5},
        "more": {"kind": "train", "epochs": 1, "batch_size": 64},
    }
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": steps,
            "variants": {"it": ["dense", "slim", "more", "slim", "more"]},
        }
    )
    known = Forecast(pipeline, tmp_path, Probe(10.0, 1000))
    trainings = [job for job in plan_jobs(pipeline, tmp_path, "x") if job.name in ("dense", "more")]
    assert [known.seconds(job) for job in trainings] == [10.0, 5.0, 2.5]


def test_a_retraining_that_begins_late_takes_the_epochs_that_are_left(tmp_path):
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {
                "dense": {"kind": "train", "epochs": 5},
                "again": {"kind": "retrain", "rewind": "lr", "epoch": 3, "epochs": 5},
            },
            "variants": {"it": ["dense", "again"]},
        }
    )
    known = Forecast(pipeline, tmp_path, Probe(10.0, 1000))
    dense, again = plan_jobs(pipeline, tmp_path, "x")[:2]
    assert (known.seconds(dense), known.seconds(again)) == (50.0, 20.0)
