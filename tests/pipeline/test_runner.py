"""A pipeline run: every step once, every artifact measured, the same numbers for the same seed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfprune
from tfprune.data import load as load_data
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import sha256
from tfprune.formats import load
from tfprune.measure import evaluate
from tfprune.pipeline import Pipeline
from tfprune.pipeline.executors import Execution
from tfprune.pipeline.runner import forecast, run
from tfprune.report import comparison, read_run


def test_every_variant_has_every_artifact(tiny_run, tiny_pipeline):
    for variant in tiny_pipeline.variants:
        names = {path.name for path in (tiny_run / variant / "seed-0").iterdir()}
        assert {
            "model.keras",
            "model.savedmodel.tar.gz",
            "model.tflite",
            "model.int8.tflite",
            "artifacts.json",
            "labels.txt",
            "record.json",
            "sparsity.csv",
        } == names


def test_a_figure_is_that_of_the_file_itself(tiny_run, tiny_pipeline):
    test = load_data("digits", limit=tiny_pipeline.data.limit).test
    table = comparison(read_run(tiny_run))
    assert len(table) == 4 * len(tiny_pipeline.variants)
    files = {"keras": "model.keras", "tflite": "model.tflite", "tflite-int8": "model.int8.tflite"}
    for row in table[table.artifact.isin(files)].itertuples():
        path = tiny_run / row.variant / "seed-0" / files[row.artifact]
        again = evaluate(load(path), test)
        assert row.accuracy == pytest.approx(again.value)
        assert row.loss == pytest.approx(again.loss, rel=1e-5)
        assert row.bytes == path.stat().st_size


@pytest.mark.slow
def test_onnx_is_delivered_and_measured_like_the_others(tiny_pipeline, tmp_path):
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pipeline = tiny_pipeline.model_copy(update={"formats": ("keras", "onnx")})
    table = comparison(read_run(run(pipeline, out=tmp_path, only=["dense"])))
    rows = table.set_index("artifact")
    assert rows.loc["onnx", "accuracy"] == rows.loc["keras", "accuracy"]
    assert rows.loc["onnx", "macs"] == rows.loc["keras", "macs"]
    assert rows.loc["onnx", "latency_ms"] > 0


def test_weights_arrive_at_their_sparsity_and_filters_at_their_macs(tiny_run):
    sparse = keras.saving.load_model(tiny_run / "sparse" / "seed-0" / "model.keras")
    for weight in sparse.trainable_weights:
        if weight.name == "kernel":
            zeros = int((np.asarray(weight) == 0).sum())
            assert abs(zeros - 0.75 * np.asarray(weight).size) <= 1
    dense = keras.saving.load_model(tiny_run / "dense" / "seed-0" / "model.keras")
    slim = keras.saving.load_model(tiny_run / "both" / "seed-0" / "model.keras")
    assert tfprune.macs(slim) <= 0.5 * tfprune.macs(dense)


def test_what_variants_share_is_done_once(tiny_run, tiny_pipeline):
    names = [path.name.rsplit("-", 1)[0] for path in (tiny_run / "steps").iterdir()]
    # `sparse` follows two different steps, so it is done twice; all others once.
    assert sorted(names) == ["dense", "learn", "slim", "sparse", "sparse"]
    assert not list(tiny_run.rglob("*.partial"))
    assert not list(tiny_run.rglob("scratch"))


def test_a_rerun_does_nothing_again(tiny_run, tiny_pipeline):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("model*")}
    said = []
    run(tiny_pipeline, out=tiny_run.parent, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("model*")} == before
    assert said == []


def test_a_killed_run_goes_on_to_the_same_files(tiny_run, tiny_pipeline, tmp_path, monkeypatch):
    from tfprune.training.checkpoint import EpochLog

    saved = EpochLog.on_epoch_end
    epochs = []

    def dies_after_two(self, epoch, logs=None):
        saved(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochLog, "on_epoch_end", dies_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_pipeline, out=tmp_path, only=["sparse"])
    assert not (tmp_path / "tiny" / "sparse").exists()
    said = []
    run(tiny_pipeline, out=tmp_path, only=["sparse"], say=said.append)
    titles = [line.split()[0] for line in said if line.startswith("[")]
    assert titles == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    # Two epochs before the kill, two after: none was done twice.
    assert len(epochs) == 4
    path = "sparse/seed-0/model.keras"
    assert sha256(tmp_path / "tiny" / path) == sha256(tiny_run / path)


def test_the_run_says_where_it_came_from(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    assert record["sessions"][0]["versions"]["keras"] == keras.__version__
    assert record["seeds"] == [0]
    assert record["sessions"][0]["machine"]["cores"] >= 1
    assert record["pipeline"]["name"] == "tiny"


def test_an_unknown_variant_is_refused_before_anything_is_done(tiny_pipeline, tmp_path):
    with pytest.raises(UsageError) as caught:
        run(tiny_pipeline, out=tmp_path / "new", only=["sprase"])
    assert str(caught.value) == (
        "the pipeline 'tiny' has no variant 'sprase': did you mean 'sparse'?"
    )
    assert not (tmp_path / "new").exists()


def test_an_output_folder_that_cannot_be_written_is_refused_first(tiny_pipeline, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError, match="cannot be written") as caught:
        run(tiny_pipeline, out=tmp_path / "file")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_whatever_the_test_images_are(
    tiny_run, tiny_pipeline, tmp_path, monkeypatch
):
    """Test images decide nothing: with others only the figures change."""
    from dataclasses import replace

    from tfprune import data

    true = data.load

    def swapped(*args, **kwargs):
        dataset = true(*args, **kwargs)
        wrong = data.Arrays(dataset.test.inputs, (dataset.test.labels + 1) % 10)
        return replace(dataset, test=wrong)

    monkeypatch.setattr(data, "load", swapped)
    again = run(tiny_pipeline, out=tmp_path, only=["both"])
    for name in ("model.keras", "model.tflite", "model.int8.tflite"):
        path = f"both/seed-0/{name}"
        assert sha256(again / path) == sha256(tiny_run / path)
    old, new = comparison(read_run(tiny_run)), comparison(read_run(again))
    assert (new.accuracy.to_numpy() != old[old.variant == "both"].accuracy.to_numpy()).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ["tflite-int8"]}, "variants.dense: layer 'loop' .* cannot calibrate a loop"),
        ({"formats": ["tflite"], "batch": "dynamic"}, "variants.dense: .* over an open batch"),
    ],
)
def test_loops_that_no_training_makes_exportable_are_refused_before_it(
    changes, message, tmp_path, monkeypatch
):
    inputs = keras.Input((3, 4, 4, 1))
    loop = keras.layers.ConvLSTM2D(2, 3, name="loop")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(loop)))
    model.save(tmp_path / "net.keras")
    np.savez(
        tmp_path / "films.npz",
        **{f"x_{part}": np.zeros((40, 3, 4, 4, 1), "float32") for part in ("train", "test")},
        **{f"y_{part}": np.arange(40) % 2 for part in ("train", "test")},
    )
    pipeline = Pipeline.model_validate(
        {
            "name": "films",
            "data": {"name": str(tmp_path / "films.npz")},
            "model": {"name": str(tmp_path / "net.keras")},
            "steps": {"dense": {"kind": "train", "epochs": 1}},
            "variants": {"dense": ["dense"]},
            **changes,
        }
    )
    monkeypatch.setattr("keras.Model.fit", None)
    for execution in (None, Execution("processes", workers=1)):
        with pytest.raises(TfpruneError, match=message):
            run(pipeline, out=tmp_path / "runs", execution=execution)


def test_a_file_that_changed_after_it_was_measured_is_not_compared(tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    path = copy / "dense" / "seed-0" / "model.tflite"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(TfpruneError, match="is not the file that was measured"):
        comparison(read_run(copy))


def test_a_finished_run_is_recognised_without_keras(tiny_run, tiny_pipeline, tmp_path):
    """In a fresh process, so that nothing is imported yet."""
    code = f"""
import json, sys
from pathlib import Path
from tfprune.pipeline import Pipeline
from tfprune.pipeline.executors import Execution
from tfprune.pipeline.runner import forecast, run

record = json.loads(Path({str(tiny_run / "run.json")!r}).read_text())
pipeline = Pipeline.model_validate(record["pipeline"])
out = Path({str(tiny_run.parent)!r})
assert (forecast(pipeline, out=out)["state"] == "done").all()
run(pipeline, out=out, say=print)
assert not {{"keras", "tensorflow"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_forecast_does_nothing_and_says_what_is_left(tiny_run, tiny_pipeline, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(tiny_run, out / "tiny")
    shutil.rmtree(out / "tiny" / "both")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    table = forecast(tiny_pipeline, out=out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    left = table[table.state != "done"]
    assert list(left.task) == ["both, seed 0: export and measure"]
    assert (left.seconds > 0).all()
    assert (left.bytes > 0).all()
    assert (table[table.state == "done"][["seconds", "bytes"]] == 0).all(axis=None)


def test_a_forecast_of_a_new_run_times_the_model(tiny_pipeline, tmp_path):
    said = []
    table = forecast(tiny_pipeline, out=tmp_path, only=["sparse"], say=said.append)
    assert said == ["nothing is recorded yet: timing a few steps of the model"]
    assert list(table.state) == ["to do"] * 4
    assert (table.seconds > 0).all()
    # Two trainings of as many epochs take the same; and nothing was begun.
    assert table.seconds[0] == table.seconds[1]
    assert not list(tmp_path.iterdir())


def test_sessions_are_recorded_and_a_rerun_that_does_nothing_is_none(tiny_run, tiny_pipeline):
    run(tiny_pipeline, out=tiny_run.parent)
    (session,) = json.loads((tiny_run / "run.json").read_text())["sessions"]
    assert session["begun"] <= session["ended"]
    assert session["seeds"] == [0]
    assert len(session["commit"]) >= 12


@pytest.mark.slow
def test_a_killed_session_has_no_end_and_the_next_one_is_noted_beside_it(
    tiny_pipeline, tmp_path, monkeypatch
):
    from tfprune.pipeline.execution import Executor

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "do", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_pipeline, out=tmp_path, only=["dense"])
    run(tiny_pipeline, out=tmp_path, only=["dense"])
    first, second = json.loads((tmp_path / "tiny" / "run.json").read_text())["sessions"]
    assert first["ended"] is None
    assert second["ended"] is not None


def _chained(tiny_pipeline, **tables):
    """The tiny pipeline with other steps and variants."""
    raw = tiny_pipeline.model_dump(mode="json", exclude={"training", "rounds", "sweep"})
    raw |= {"formats": ["keras"], **tables}
    return Pipeline.model_validate(raw)


@pytest.mark.slow
def test_a_lottery_is_a_chain_whose_masks_nest_and_whose_weights_are_the_early_ones(
    tiny_pipeline, tmp_path
):
    train = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}
    pipeline = _chained(
        tiny_pipeline,
        steps={
            "dense": {"kind": "train", "keep": [1], **train},
            "cut": {"kind": "prune-once", "share": 0.2, "layers": {"logits": 0.1}},
            "init": {"kind": "retrain", "rewind": "weights", **train},
            "early": {"kind": "retrain", "rewind": "weights", "epoch": 1, **train},
            "reinit": {"kind": "retrain", "rewind": "reinit", **train},
            "rate": {"kind": "retrain", "rewind": "lr", **train},
        },
        variants={"dense": ["dense"], "early": ["dense", "cut", "early"]},
        rounds={
            "ticket": {"start": ["dense"], "repeat": ["cut", "init"], "times": 2},
            "reinit": {
                "start": ["dense"],
                "repeat": ["cut", "init"],
                "end": ["reinit"],
                "times": 1,
            },
            "rate": {"start": ["dense"], "repeat": ["cut", "rate"], "times": 1},
        },
    )
    directory = run(pipeline, out=tmp_path)
    kernels = {
        variant: [
            np.asarray(layer.kernel)
            for layer in keras.saving.load_model(
                directory / variant / "seed-0" / "model.keras"
            ).layers
            if hasattr(layer, "kernel")
        ]
        for variant in pipeline.variants
    }
    for one, two, other, rate in zip(
        *(kernels[name] for name in ("ticket-1", "ticket-2", "reinit-1", "rate-1")), strict=True
    ):
        assert np.count_nonzero(two) < np.count_nonzero(one) < one.size
        assert not two[one == 0].any()
        for same_mask in (other, rate):
            np.testing.assert_array_equal(np.count_nonzero(same_mask), np.count_nonzero(one))
    assert [np.count_nonzero(kernel == 0) for kernel in kernels["ticket-1"]] == [7, 58, 8]
    records = {
        name: json.loads(next((directory / "steps").glob(f"{name}-*/record.json")).read_text())
        for name in ("dense", "init", "early")
    }
    # The same data, schedule and start, but for the mask; from epoch 1 one epoch is left.
    assert records["early"]["history"]["epoch"] == [2]
    assert len(records["init"]["history"]["epoch"]) == 2
    assert [path.name for path in directory.glob("steps/dense-*/epoch-*")] == ["epoch-1.keras"]
    # What the rounds share is done once: dense, two cuts and inits, and one each of the others.
    assert len(list((directory / "steps").iterdir())) == 8


@pytest.mark.slow
def test_a_structure_is_learnt_taught_cut_and_trained_from_scratch(tiny_pipeline, tmp_path):
    train = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}
    learn = {"kind": "learn", "macs": 0.5, "frequency": 4, **train}
    pipeline = _chained(
        tiny_pipeline,
        steps={
            "dense": {"kind": "train", **train},
            "learn": learn,
            "taught": {**learn, "teacher": "dense", "teacher_weight": 0.9},
            "dead": {"kind": "slim", "dead": True},
            "scratch": {"kind": "retrain", "rewind": "reinit", **train},
        },
        variants={
            "learnt": ["dense", "learn", "dead"],
            "taught": ["dense", "taught", "dead"],
            "scratch": ["dense", "learn", "dead", "scratch"],
        },
    )
    directory = run(pipeline, out=tmp_path)
    records = {
        path.parent.name.rsplit("-", 1)[0]: json.loads(path.read_text())
        for path in (directory / "steps").glob("*/record.json")
    }
    learnt, taught, scratch = (
        keras.saving.load_model(directory / variant / "seed-0" / "model.keras")
        for variant in pipeline.variants
    )
    assert tfprune.macs(learnt) <= 0.5 * records["dense"]["macs"]
    # Removing what is dead is free.
    found = records["dead"]["validation_accuracy"]
    assert found["before"] == found["removed"]
    assert records["learn"]["history"]["sparsity"][-1] > 0.2
    assert records["learn"]["history"]["loss"] != records["taught"]["history"]["loss"]
    assert tfprune.macs(scratch) == tfprune.macs(learnt)
    assert tfprune.macs(taught) <= 0.5 * records["dense"]["macs"]
    for mine, theirs in zip(scratch.weights, learnt.weights, strict=True):
        if mine.name == "kernel":
            assert not np.array_equal(mine, theirs)


@pytest.mark.slow
def test_a_chain_may_end_in_what_it_is_exported_as(tiny_pipeline, tmp_path):
    pipeline = _chained(
        tiny_pipeline,
        steps={
            "dense": {"kind": "train", "epochs": 1, "batch_size": 32},
            "int8": {"kind": "quantize", "images": 50},
            "phone": {"kind": "export", "formats": ["tflite"]},
            "round": {"kind": "quantize-weights", "bits": 4},
        },
        variants={
            "dense": ["dense"],
            "dense-int8": ["dense", "int8"],
            "dense-phone": ["dense", "phone"],
            "dense-round": ["dense", "round", "int8"],
        },
    )
    directory = run(pipeline, out=tmp_path)
    assert [path.name for path in sorted(directory.glob("*/seed-0/model*"))] == [
        "model.keras",
        "model.int8.tflite",
        "model.tflite",
        "model.int8.tflite",
    ]
    assert len(list((directory / "steps").iterdir())) == 2
    sizes = comparison(read_run(directory)).set_index("variant").bytes_gzip
    assert sizes["dense-round"] < sizes["dense-int8"]


@pytest.mark.slow
def test_a_keras_file_is_pruned_without_training_it_first(tiny_run, tiny_pipeline, tmp_path):
    file = tiny_run / "dense" / "seed-0" / "model.keras"
    pipeline = _chained(
        tiny_pipeline,
        model={"name": str(file)},
        variants={"as-it-is": [], "slim": ["slim"]},
    )
    directory = run(pipeline, out=tmp_path)
    assert sha256(directory / "as-it-is" / "seed-0" / "model.keras") == sha256(file)
    slim = keras.saving.load_model(directory / "slim" / "seed-0" / "model.keras")
    assert tfprune.macs(slim) <= 0.5 * tfprune.macs(keras.saving.load_model(file))
    assert comparison(read_run(directory)).epochs.tolist() == [0, 0]


@pytest.mark.slow
def test_a_file_with_other_weights_is_another_model(tiny_run, tiny_pipeline, tmp_path):
    own = tmp_path / "net.keras"
    pipeline = _chained(tiny_pipeline, model={"name": str(own)}, variants={"as-it-is": []})
    found = []
    for variant in ("dense", "sparse"):
        shutil.copy(tiny_run / variant / "seed-0" / "model.keras", own)
        run(pipeline, out=tmp_path)
        found.append(sha256(tmp_path / "tiny" / "as-it-is" / "seed-0" / "model.keras"))
    assert found[0] != found[1]


def test_training_curves_are_there_for_tensorboard(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    step = next((tiny_run / "steps").glob("dense-*"))
    events = EventAccumulator(str(step / "tensorboard" / "validation"))
    events.Reload()
    history = json.loads((step / "record.json").read_text())["history"]
    logged = [float(make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_accuracy")]
    assert logged == pytest.approx(history["val_accuracy"])


@pytest.mark.slow
def test_two_runs_at_once_share_the_work_and_end_alike(tiny_run, tiny_pipeline, tmp_path):
    """Whoever comes second to a step waits for it, and takes what the other made."""
    code = f"""
import json
from pathlib import Path
from tfprune.pipeline import Pipeline
from tfprune.pipeline.executors import Execution
from tfprune.pipeline.runner import run
from tfprune.pipeline.execution import Executor

do = Executor.do

def noted(self, task, *rest):
    with Path("done").open("a") as file:
        file.write(task.folder.name + "\\n")
    return do(self, task, *rest)

Executor.do = noted
record = json.loads(Path({str(tiny_run / "run.json")!r}).read_text())
run(Pipeline.model_validate(record["pipeline"]), out=Path("runs"))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(2)]
    assert [process.wait(timeout=250) for process in both] == [0, 0]
    done = (tmp_path / "done").read_text().split()
    # All seeds share their folder's name: three deliveries, one latency, five steps.
    assert len(done) == 9
    assert len([name for name in done if not name.startswith("seed-")]) == len(set(done)) - 1 == 5
    for name in ("model.keras", "model.int8.tflite"):
        path = f"both/seed-0/{name}"
        assert sha256(tmp_path / "runs" / "tiny" / path) == sha256(tiny_run / path)
    sessions = json.loads((tmp_path / "runs" / "tiny" / "run.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert all(session["ended"] for session in sessions)
