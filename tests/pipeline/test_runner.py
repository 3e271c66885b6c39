"""A pipeline run: every step once, every artifact measured, the same numbers for the same seed."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest

import tfprune
from tfprune.data import load as load_data
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import sha256
from tfprune.measure import evaluate, load
from tfprune.pipeline.runner import run
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
        again = evaluate(load(path), test.images, test.labels)
        assert row.accuracy == pytest.approx(again.accuracy)
        assert row.loss == pytest.approx(again.loss, rel=1e-5)
        assert row.bytes == path.stat().st_size


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


def test_the_same_seed_gives_the_same_files(tiny_run, tiny_pipeline, tmp_path):
    again = run(tiny_pipeline, out=tmp_path, only=["both"])
    for name in ("model.keras", "model.tflite", "model.int8.tflite"):
        path = f"both/seed-0/{name}"
        assert sha256(again / path) == sha256(tiny_run / path)


def test_a_killed_run_goes_on_to_the_same_files(tiny_run, tiny_pipeline, tmp_path, monkeypatch):
    from tfprune.checkpoint import EpochLog

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
    run(tiny_pipeline, out=tmp_path, only=["sparse"])
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


def test_test_images_decide_nothing(tiny_run, tiny_pipeline, tmp_path, monkeypatch):
    """With other test images every model stays the same, and only the figures change."""
    from dataclasses import replace

    from tfprune import data

    true = data.load

    def swapped(*args, **kwargs):
        dataset = true(*args, **kwargs)
        wrong = replace(dataset.test, labels=(dataset.test.labels + 1) % 10)
        return replace(dataset, test=wrong)

    monkeypatch.setattr(data, "load", swapped)
    again = run(tiny_pipeline, out=tmp_path, only=["both"])
    for name in ("model.keras", "model.tflite", "model.int8.tflite"):
        path = f"both/seed-0/{name}"
        assert sha256(again / path) == sha256(tiny_run / path)
    old, new = comparison(read_run(tiny_run)), comparison(read_run(again))
    assert (new.accuracy.to_numpy() != old[old.variant == "both"].accuracy.to_numpy()).all()


def test_a_file_that_changed_after_it_was_measured_is_not_compared(tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    path = copy / "dense" / "seed-0" / "model.tflite"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(TfpruneError, match="is not the file that was measured"):
        comparison(read_run(copy))
