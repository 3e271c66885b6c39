"""A report is a set of files, written by what is light to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.report.fake import SESSION, fake_run
from tfprune.report import write_report


def test_the_path_is_the_pages_and_the_tables_lie_beside_it(tmp_path):
    assert write_report(fake_run(tmp_path)) == tmp_path / "report.html"
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {
        "run.json",
        "report.html",
        "report.md",
        "comparison.csv",
        "comparison.json",
        "layers.csv",
    }


def test_tables_are_printed_without_what_only_the_page_needs():
    heavy = ["keras", "tensorflow", "matplotlib", "jinja2"]
    code = f"import sys, tfprune.report; print([each for each in {heavy} if each in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


@pytest.mark.slow
def test_a_page_is_written_without_keras(tmp_path):
    code = (
        "import sys, pathlib, tfprune.report as report; "
        f"report.write_report(pathlib.Path({str(fake_run(tmp_path))!r})); "
        "print([each for each in ('keras', 'tensorflow') if each in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_markdown_tells_all_sessions_and_how_sure_an_accuracy_is(tmp_path):
    sessions = [SESSION | {"ended": None, "command": "tfprune run first.toml"}, SESSION]
    write_report(fake_run(tmp_path, {"dense": ["dense"], "given": []}, sessions=sessions))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (
        "With 200 test examples the accuracy of dense as tflite has a 95% interval from 91.0% to "
        "97.3%."
    ) in text
    assert (
        "- command: `tfprune run first.toml`\n"
        "- commit: 0123456789ab\n"
        "- versions: python 3.11.7, keras 3.15.1\n"
        "- machine: Abacus, 2 cores, 4.0 GiB, Linux x86_64\n"
        "- begun 2026-01-02 03:04:05 UTC, ended killed or going on\n"
        "- command: `tfprune run pipelines/fake.toml`\n"
        "- commit: 0123456789ab\n"
        "- begun 2026-01-02 03:04:05 UTC, ended 2026-01-02 03:14:05 UTC\n"
    ) in text
    assert "- **given**: the model as it was given\n" in text
