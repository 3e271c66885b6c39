"""A job's key holds all that its result depends on, and a plan grows with what it plans."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tfprune import data
from tfprune.pipeline import Pipeline, load_pipeline
from tfprune.pipeline import jobs as jobs_module
from tfprune.pipeline.forecast import Forecast, Probe
from tfprune.pipeline.inputs import RunData
from tfprune.pipeline.jobs import Job, plan_jobs
from tfprune.pipeline.spec import DataSpec
from tfprune.pipeline.steps.filters import SlimStep

ROUNDS = """
name = "deep"
[data]
name = "digits"
[model]
name = "vgg"
[steps.dense]
kind = "train"
epochs = 2
[steps.cut]
kind = "prune-once"
share = 0.001
[steps.again]
kind = "retrain"
rewind = "weights"
epochs = 2
[steps.int8]
kind = "quantize"
[rounds.ticket]
start = ["dense"]
repeat = ["cut", "again"]
end = ["int8"]
times = 3
[variants]
dense = ["dense"]
"""


def _pipeline(**changes: Any) -> Pipeline:
    raw = {
        "name": "tiny",
        "formats": ["keras"],
        "data": {"name": "digits"},
        "model": {"name": "vgg", "options": {"width": 4}},
        "steps": {
            "dense": {"kind": "train", "epochs": 2},
            "slim": {"kind": "slim", "macs": 0.5},
            "int8": {"kind": "quantize", "images": 20},
        },
        "variants": {"it": ["dense", "slim", "int8"]},
    }
    for place, value in changes.items():
        table: Any = raw
        *above, last = place.split("__")
        for part in above:
            table = table[part]
        table[last] = value
    return Pipeline.model_validate(raw)


def _keys(pipeline: Pipeline, images: str = "images") -> dict[str, str]:
    return {job.name: job.identity for job in plan_jobs(pipeline, Path("x"), images)}


class TestKeys:
    @pytest.mark.parametrize(
        ("changes", "changed"),
        [
            ({"model__options": {"width": 8}}, {"dense", "slim", "it", "latency"}),
            ({"seeds": [1]}, {"dense", "slim", "it", "latency"}),
            ({"steps__dense": {"kind": "train", "epochs": 3}}, {"dense", "slim", "it", "latency"}),
            ({"steps__slim": {"kind": "slim", "macs": 0.6}}, {"slim", "it", "latency"}),
            ({"steps__int8": {"kind": "quantize", "images": 21}}, {"it", "latency"}),
            (
                {"steps__int8": {"kind": "quantize", "to": "float16", "images": 20}},
                {"it", "latency"},
            ),
            # Neither the run's name, nor a step that no variant has, nor formats of others.
            ({"name": "other", "steps__more": {"kind": "quantize-weights"}}, set()),
            ({"formats": ["tflite"]}, set()),
        ],
    )
    def test_what_changes_a_result_changes_its_key_and_those_after_it(self, changes, changed):
        before, after = _keys(_pipeline()), _keys(_pipeline(**changes))
        assert {name for name in before if before[name] != after[name]} == changed

    def test_what_the_files_of_a_task_import_changes_its_keys(self, tmp_path):
        (tmp_path / "own_loss.py").write_text("from loss_parts import far\n")
        keys = []
        for content in ("def far(y, z): return y - z", "def far(y, z): return z - y"):
            (tmp_path / "loss_parts.py").write_text(content)
            task = {"kind": "classification", "loss": f"{tmp_path}/own_loss.py:far"}
            keys.append(_keys(_pipeline(task=task)))
        assert not set(keys[0].values()) & set(keys[1].values())

    def test_other_images_give_other_keys_for_every_job(self):
        one, other = _keys(_pipeline(), "one"), _keys(_pipeline(), "other")
        assert not set(one.values()) & set(other.values())

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    @pytest.mark.parametrize("what", ["inputs", "targets"])
    def test_one_other_pixel_or_label_of_any_split_is_another_set(
        self, split, what, tmp_path, monkeypatch
    ):
        dataset = data.load("digits", limit=64)
        arrays = {name: getattr(getattr(dataset, split), name) for name in ("inputs", "targets")}
        arrays[what] = arrays[what].copy()
        arrays[what].flat[-1] = (int(arrays[what].flat[-1]) + 1) % 10
        monkeypatch.setattr(data, "load", lambda *args, **options: dataset)
        before = RunData(DataSpec(name="digits", limit=64), None, tmp_path / "one").sha256
        changed = dataclasses.replace(dataset, **{split: data.Arrays(**arrays)})
        monkeypatch.setattr(data, "load", lambda *args, **options: changed)
        after = RunData(DataSpec(name="digits", limit=64), None, tmp_path / "two").sha256
        assert before != after
        assert not set(_keys(_pipeline(), before).values()) & set(
            _keys(_pipeline(), after).values()
        )

    @pytest.mark.parametrize(
        ("package", "changed"),
        [
            ("keras", {"dense", "slim", "it", "latency"}),
            ("tensorflow", {"dense", "slim", "it", "latency"}),
            ("ai-edge-litert", {"it", "latency"}),
            ("numpy", set()),
        ],
    )
    def test_another_version_is_another_result(self, package, changed, monkeypatch):
        before = _keys(_pipeline())
        known = {**jobs_module.versions(), package: "0.0"}
        monkeypatch.setattr(jobs_module, "versions", lambda: known)
        after = _keys(_pipeline())
        assert {name for name in before if before[name] != after[name]} == changed

    def test_a_revision_changes_the_steps_of_its_kind_and_what_comes_after(self, monkeypatch):
        before = _keys(_pipeline())
        monkeypatch.setattr(SlimStep, "revision", 99)
        after = _keys(_pipeline())
        assert {name for name in before if before[name] != after[name]} == {"slim", "it", "latency"}

    def test_another_keras_file_is_another_model(self, tmp_path):
        found = []
        for content in (b"one", b"two"):
            file = tmp_path / "net.keras"
            file.write_bytes(content)
            found.append(_keys(_pipeline(model={"name": str(file)})))
        assert not set(found[0].values()) & set(found[1].values())


class TestChains:
    def _jobs(self, tmp_path: Path, times: int) -> list[Job]:
        file = tmp_path / "p.toml"
        file.write_text(ROUNDS)
        return plan_jobs(
            load_pipeline(file, [f"rounds.ticket.times={times}"]), tmp_path / "run", "images"
        )

    def test_rounds_share_their_steps_and_each_knows_its_chain(self, tmp_path):
        jobs = self._jobs(tmp_path, 3)
        chains = {
            job.variant: [step.name for step in job.before]
            for job in jobs
            if job.kind == "delivery"
        }
        assert chains == {
            "dense": ["dense"],
            **{f"ticket-{n}": ["dense", *["cut", "again"] * n] for n in (1, 2, 3)},
        }
        steps = [job for job in jobs if job.kind == "step"]
        assert len(steps) == 1 + 2 * 3
        assert len({job.identity for job in jobs}) == len(jobs)
        # Every job comes after all that it needs.
        done: set[str] = set()
        for job in jobs:
            assert {each.identity for each in job.before} <= done
            done.add(job.identity)

    def test_written_out_they_are_the_same_tasks(self, tmp_path):
        file = tmp_path / "p.toml"
        file.write_text(ROUNDS)
        pipeline = load_pipeline(file)
        raw = pipeline.model_dump(mode="json", exclude={"training", "rounds", "sweep"})
        again = Pipeline.model_validate(raw)
        assert again.variants == pipeline.variants
        one, other = (plan_jobs(each, tmp_path, "images") for each in (pipeline, again))
        assert [job.identity for job in one] == [job.identity for job in other]

    def test_just_one_variant_is_told_by_its_own_name(self, tmp_path):
        pipeline = load_pipeline(self._file(tmp_path))
        jobs = plan_jobs(pipeline, tmp_path, "images", only=["ticket-2"])
        assert {job.variant for job in jobs if job.kind != "latency"} == {"ticket-2"}
        assert len(jobs) == 5 + 1 + 1

    def _file(self, tmp_path: Path) -> Path:
        file = tmp_path / "p.toml"
        file.write_text(ROUNDS)
        return file

    @pytest.mark.slow
    def test_thousands_of_rounds_take_memory_by_the_round(self, tmp_path):
        """Ten times the rounds take ten times the memory; by the square it were a hundred."""
        peaks = {}
        self._jobs(tmp_path, 3)
        for times in (300, 3000):
            tracemalloc.start()
            jobs = self._jobs(tmp_path, times)
            pipeline = load_pipeline(self._file(tmp_path), [f"rounds.ticket.times={times}"])
            table = Forecast(pipeline, tmp_path / "run", Probe(1.0, 1000)).table(jobs)
            peaks[times] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert len(table) == 3 * times + 3
        assert peaks[3000] < 15 * peaks[300]
        assert peaks[3000] < 64 * 2**20
