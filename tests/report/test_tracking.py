"""What MLflow is told is what the records say, once."""

from __future__ import annotations

import sys

import pytest

from tests.report.fake import fake_run, stop_early
from tfprune.errors import TfpruneError
from tfprune.files import RECORD, read_json, write_json
from tfprune.report import read_run
from tfprune.report.tracking import log_to_mlflow


@pytest.fixture
def uri(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    # The file store needs no database, which a test can do without.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_every_variant_is_a_run_with_its_curves_figures_and_files(tiny_run, uri):
    from mlflow import MlflowClient

    run = read_run(tiny_run)
    ids = log_to_mlflow(run, uri)
    client = MlflowClient(tracking_uri=uri)
    assert len(ids) == len(run.deliveries) == 3
    logged = client.get_run(ids[2])
    both = run.deliveries[2]
    assert logged.info.run_name == "both, seed 0"
    assert logged.info.status == "FINISHED"
    assert logged.data.params["chain"] == "dense learn slim sparse"
    assert logged.data.params["sparse.sparsity"] == "0.75"
    tflite = next(each for each in both.record["artifacts"] if each["format"] == "tflite")
    assert logged.data.metrics["tflite/accuracy"] == tflite["accuracy"]
    assert logged.data.metrics["macs"] == both.record["macs"]
    curve = client.get_metric_history(ids[2], "val_accuracy")
    trained = [step.record for step in both.steps if "history" in step.record]
    assert [point.value for point in sorted(curve, key=lambda point: point.step)] == [
        value for record in trained for value in record["history"]["val_accuracy"]
    ]
    assert sorted(point.step for point in curve) == [1, 2, 3, 4, 5]
    assert "model.tflite" in {each.path for each in client.list_artifacts(ids[2])}


def test_after_an_early_stopping_the_best_epoch_is_the_value_of_the_run(tmp_path, uri):
    from mlflow import MlflowClient

    directory = fake_run(tmp_path / "run", {"it": ["dense"]})
    stop_early(directory, "dense", best_epoch=2)
    record = directory / "it/seed-0" / RECORD
    write_json(record, {**read_json(record), "identity": "0123456789ab"})
    run = read_run(directory)
    (identity,) = log_to_mlflow(run, uri)
    client = MlflowClient(tracking_uri=uri)
    history = run.deliveries[0].steps[0].record["history"]["val_accuracy"]
    assert client.get_run(identity).data.metrics["val_accuracy"] == history[1]
    curve = client.get_metric_history(identity, "val_accuracy")
    assert [point.value for point in curve if point.step < 4] == history[:3]


def test_what_was_logged_is_not_logged_again(tiny_run, uri):
    run = read_run(tiny_run)
    assert len(log_to_mlflow(run, uri)) == 3
    assert log_to_mlflow(run, uri) == []


def test_without_mlflow_one_line_says_how_to_get_it(tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TfpruneError) as caught:
        log_to_mlflow(read_run(tiny_run))
    assert str(caught.value) == "MLflow is not installed: run `pip install 'tfprune[mlflow]'`"


def test_a_place_that_refuses_is_one_line(tiny_run, tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(TfpruneError, match=r"^MLflow at ftp://x refused \(") as caught:
        log_to_mlflow(read_run(tiny_run), "ftp://x")
    assert "\n" not in str(caught.value)
