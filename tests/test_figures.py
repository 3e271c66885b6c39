"""A figure is known everywhere by its row, and by its value in the record that the row names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.fake import fake_run
from tfprune import figures
from tfprune.errors import TfpruneError
from tfprune.figures import COSTS, FIGURES, Number, by_name, compared, figure, judged
from tfprune.report import comparison, read_run

ROW = (
    'Figure("energy_j", "energy", Number(" mJ", 1, 1e-3), "artifact", "energy of one image", '
    '"lower", key="joules")'
)
# In processes of their own, because the rules of budgets are built when they are imported.
SCRIPT = f"""
import json, sys
from pathlib import Path
from tfprune import figures
from tfprune.figures import Figure, Number

figures.FIGURES += ({ROW},)

from tfprune.pipeline import json_schema
from tfprune.report import judge, over_seeds, planned, read_run, render, write_report
from tfprune.report.budgets import Budget
from tfprune.report.tables import artifact_figures

directory = Path(sys.argv[1])
run = read_run(directory)
table = planned(run)
rule = {{"variant": "slim", "against": "dense", "energy_j": {{"max": 0.002, "max_ratio": 0.4}}}}
write_report(directory)
print(json.dumps({{
    "table": render(over_seeds(table)),
    "markdown": (directory / "report.md").read_text(encoding="utf-8"),
    "csv": (directory / "comparison.csv").read_text(encoding="utf-8"),
    "page": (directory / "report.html").read_text(encoding="utf-8"),
    "budget": [each.sentence for each in judge(Budget(rules=[rule]), table)],
    "schema": "energy_j" in json_schema()["$defs"]["Rule"]["properties"],
}}))
"""
TRACKING = f"""
import json, sys
from pathlib import Path
from tfprune import figures
from tfprune.figures import Figure, Number

figures.FIGURES += ({ROW},)

from mlflow import MlflowClient
from tfprune.report import read_run
from tfprune.report.tracking import log_to_mlflow

identity, *_ = log_to_mlflow(read_run(Path(sys.argv[1])), sys.argv[2])
print(json.dumps(MlflowClient(tracking_uri=sys.argv[2]).get_run(identity).data.metrics))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run whose artifacts have one more figure in their records."""
    directory = fake_run(tmp_path / "run", formats=("tflite",))
    for path in directory.glob("*/seed-0/record.json"):
        record = json.loads(path.read_text())
        record["identity"] = str(path)
        for artifact in record.get("artifacts", []):
            artifact["joules"] = 0.0012 if "slim" in str(path) else 0.0024
        path.write_text(json.dumps(record))
    return directory


def _run(script: str, *arguments: str) -> dict:
    answer = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def test_a_new_row_is_in_tables_markdown_page_budget_and_schema(directory):
    shown = _run(SCRIPT, str(directory))
    heading, dense, *_, slim = shown["table"].splitlines()
    assert "energy" in heading
    assert "2.4 mJ" in dense
    assert "1.2 mJ" in slim
    assert "energy" in shown["markdown"]
    assert "1.2 mJ" in shown["markdown"]
    assert ",energy_j" in shown["csv"].splitlines()[0]
    assert '<th scope="col" title="energy of one image">energy</th>' in shown["page"]
    assert '<a href="./slim/seed-0/record.json">1.2 mJ</a>' in shown["page"]
    assert shown["budget"] == [
        "rule #1: slim tflite: energy 1.2 mJ, at most 2.0 mJ is asked (slim/seed-0/record.json)",
        "rule #1: slim tflite: energy 1.2 mJ, but at most 0.4 times dense = 1.0 mJ is asked: "
        "0.2 mJ too much (slim/seed-0/record.json)",
    ]
    assert shown["schema"]


def test_a_new_row_is_tracked(directory, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    metrics = _run(TRACKING, str(directory), (tmp_path / "mlruns").as_uri())
    assert metrics["tflite/energy_j"] == 0.0024
    assert "tflite/joules" not in metrics


@pytest.mark.parametrize("value", ["much", True, [1]])
def test_a_new_row_whose_record_has_no_number_is_one_line(directory, monkeypatch, value):
    row = figures.Figure("energy_j", "energy", Number(" mJ", 1), "artifact", "", key="joules")
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, row))
    path = directory / "dense" / "seed-0" / "record.json"
    record = json.loads(path.read_text())
    record["artifacts"][0]["joules"] = value
    path.write_text(json.dumps(record))
    with pytest.raises(TfpruneError, match=rf"joules = {re.escape(repr(value))} is not a number"):
        read_run(directory)


def test_a_record_of_before_a_row_was_added_has_no_figure(directory, monkeypatch):
    row = figures.Figure("heat", "heat", Number(), "artifact", "")
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, row))
    assert comparison(read_run(directory))["heat"].isna().all()


def test_names_are_unique_and_costs_are_compared():
    names = [row.name for row in FIGURES]
    assert len(set(names)) == len(names)
    assert set(names) < set(by_name())
    assert {figure(name) for name in COSTS} <= set(judged()) <= set(compared())
    assert all(row.of in by_name() for row in FIGURES if row.of)


@pytest.mark.parametrize(
    ("name", "value", "deviation", "text"),
    [
        ("bytes", 12595.2, 409.6, "12.3 ± 0.4 KiB"),
        ("accuracy", 0.92, 0.0, "92.00% ± 0.00%"),
        ("parameters", 1234.0, 0.2, "1,234"),
        ("sparsity", 0.8, None, "80.0%"),
        ("latency_ms", float("nan"), 1.0, ""),
        ("early_stop_epoch", 0.25, float("nan"), "0.25"),
        ("accuracy_points", 0.5, None, "+0.50"),
    ],
)
def test_a_figure_as_people_read_it(name, value, deviation, text):
    assert figure(name).text(value, deviation) == text


def test_a_difference_of_percentages_is_in_points():
    assert Number("%", 2).difference(0.012) == "1.20 points"
    assert Number(" ms", 1).difference(0.5) == "0.5 ms"
