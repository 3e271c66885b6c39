"""Names are shown as they are, and nothing that reads them does more."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.fake import fake_run
from tfprune.files import read_json, write_json
from tfprune.report import read_run, render, write_report
from tfprune.report.budgets.verdict import Verdict, junit_xml, markdown_summary
from tfprune.report.text import code_span, escape_markdown

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "<script>alert(1)</script>",
    "a|b\n| c |",
    "`code` *bold* _it_ [x](javascript:1) ![y](z) ~~s~~ &lt;",
    "[red]x[/red] [/]",
    "\x1b[31m",
]


@pytest.mark.reliability("names that are formulas or markup", "right")
@pytest.mark.parametrize("name", HOSTILE)
def test_no_cell_of_a_csv_is_a_formula_and_it_reads_back(name):
    table = pd.DataFrame({"layer": [name], "size": [-1.5], name: [2]})
    read = pd.read_csv(io.StringIO(render(table, "csv"), newline=""))
    for text in (read["layer"][0], *read.columns):
        assert not text.strip().startswith(("=", "+", "-", "@"))
    assert len(read) == 1
    if name.isprintable():
        assert read["layer"][0].removeprefix("'") == name
    # A negative number is a number.
    assert read["size"][0] == -1.5


@pytest.mark.reliability("names that are formulas or markup", "right")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_shows_one_line_a_row(name):
    lines = render(pd.DataFrame({"layer": [name], "size": [1]}), "table").splitlines()
    assert len(lines) == 2
    assert "\x1b" not in lines[1]
    if name.startswith("[red]"):
        assert name in lines[1]


@given(st.text(max_size=40))
def test_markdown_has_no_bare_sign_and_no_second_line(text):
    for everywhere in (False, True):
        escaped = escape_markdown(text, everywhere=everywhere)
        assert len(escaped.splitlines()) <= 1
        plain = escaped.replace("\\\\", "")
        for sign in "|*<>&~`[]":
            assert plain.count(sign) == plain.count("\\" + sign)


@given(st.text("`ab \n", max_size=20))
def test_code_cannot_end_before_its_end(text):
    code = code_span(text)
    fence = code[: len(code) - len(code.lstrip("`"))]
    inside = code[len(fence) : -len(fence)]
    assert code.endswith(fence)
    assert fence not in inside.replace(fence + "`", "")


def test_a_words_own_underscores_stay_in_githubs_markdown():
    assert escape_markdown("block1_conv1") == "block1_conv1"
    assert escape_markdown("_it_") == "\\_it\\_"
    assert escape_markdown("block1_conv1", everywhere=True) == "block1\\_conv1"


def test_a_report_of_hostile_names_has_no_markup_of_theirs(tmp_path):
    run = fake_run(tmp_path)
    record = read_json(run / "run.json")
    record["name"] = record["data"] = record["sessions"][0]["commit"] = "<script>alert(1)</script>"
    record["sessions"][0]["command"] = "tfprune `run` <script>"
    record["pipeline"]["model"]["name"] = "<img src=x onerror=alert(1)>.keras"
    write_json(run / "run.json", record)
    for path in run.glob("*/seed-0/sparsity.csv"):
        path.write_text(path.read_text().replace("conv1", "=1+1|<script>"))
    write_report(run)
    text = (run / "report.md").read_text()
    bare = text.replace("`` tfprune `run` <script> ``", "").replace("tfprune `run` <script>", "")
    assert "\\<script\\>" in text
    assert "<script" not in bare.replace("\\<script", "")
    assert "<img" not in bare.replace("\\<img", "")
    page = (run / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "\n=" not in (run / "layers.csv").read_text()
    assert ",=" not in (run / "layers.csv").read_text()


@pytest.mark.reliability("names that are formulas or markup", "right")
@pytest.mark.parametrize("name", HOSTILE)
def test_verdicts_in_markdown_and_xml(name):
    verdict = Verdict(1, name, name, "macs", "max", 1.0, None, "missing", reason=f"no {name}")
    text = markdown_summary("run", "b.toml", [verdict])
    rows = [line for line in text.splitlines() if line.startswith("| #1")]
    assert len(rows) == 1
    assert rows[0].replace("\\\\", "").replace("\\|", "").count("|") == 9
    assert "<script" not in text.replace("\\<script", "")
    assert "<script" not in junit_xml("run", [verdict])


def test_a_link_to_a_record_is_a_file_of_the_run(tmp_path):
    run = fake_run(tmp_path, {"javascript:alert(1)": ["dense"]})
    record = read_json(run / "run.json")
    record["pipeline"]["formats"] = ["keras", "tflite"]
    record["pipeline"]["budget"] = {"rules": [{"macs": {"max": 1e12}}]}
    write_json(run / "run.json", record)
    assert read_run(run).notes() == []
    write_report(run)
    assert 'href="javascript' not in (run / "report.html").read_text()


def test_json_has_every_digit_and_null_for_what_is_not_a_number():
    exact = 0.1 + 0.2
    table = pd.DataFrame(
        {
            "a": [exact, float("nan"), float("inf")],
            "b": [np.int64(3), None, ["x", np.float64(exact)]],
            "c": [1, 2, 3],
        }
    )
    assert json.loads(render(table, "json")) == [
        {"a": exact, "b": 3, "c": 1},
        {"a": None, "b": None, "c": 2},
        {"a": None, "b": ["x", exact], "c": 3},
    ]
