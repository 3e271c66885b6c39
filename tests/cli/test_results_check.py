"""`tfprune check` prints, writes and exits as the run deserves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tfprune.cli import main
from tfprune.files import RECORD, write_json

FORMATS = {"tflite": "model.tflite", "tflite-int8": "model.int8.tflite"}
# Variant to accuracy, compressed size in bytes and milliseconds; int8 has a quarter of both.
PLAIN = {"dense": (0.95, 40_960, 0.2), "weights-80": (0.94, 12_288, 0.2)}
BUDGET = """
[[rules]]
artifact = "tflite-int8"
accuracy = { min = 0.9 }

[[rules]]
variant = "weights-*"
artifact = "tflite"
against = "dense"
accuracy = { max_drop = 0.02 }
bytes_gzip = { max_ratio = 0.5 }
"""
TABLE = """\
rule  variant     artifact     figure    measured  limit                                           margin  verdict
#1    dense       tflite-int8  accuracy    95.00%  at least 90.00%                           +5.00 points  kept
#1    weights-80  tflite-int8  accuracy    94.00%  at least 90.00%                           +4.00 points  kept
#2    weights-80  tflite       accuracy    94.00%  at most 2.00 points below dense = 93.00%  +1.00 points  kept
#2    weights-80  tflite       gzip      12.0 KiB  at most 0.5 times dense = 20.0 KiB            +8.0 KiB  kept

4 limits kept, 0 broken, 0 missing
"""  # noqa: E501 - the table as it is printed


@pytest.fixture(autouse=True)
def _no_step_summary(monkeypatch):
    """These tests may themselves run in CI, whose summary is not theirs."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def make(tmp_path) -> Callable[..., Path]:
    """Writes the folder of a run with the figures it is given."""

    def run(
        variants: dict[str, tuple[float, int, float]] = PLAIN,
        name: str = "digits",
        processor: str = "a CPU",
        **pipeline: Any,
    ) -> Path:
        folder = tmp_path / name
        times = []
        for variant, (accuracy, size, milliseconds) in variants.items():
            artifacts = []
            for form, file in FORMATS.items():
                path = folder / variant / "seed-0" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.encode())
                share = 4 if form == "tflite-int8" else 1
                artifacts.append(
                    {
                        "format": form,
                        "path": file,
                        "sha256": hashlib.sha256(file.encode()).hexdigest(),
                        "bytes_raw": 2 * size // share,
                        "bytes_gzip": size // share,
                        "accuracy": accuracy,
                        "loss": 0.5,
                        "parameters": 1000,
                        "nonzero_parameters": 250,
                        "test_images": 360,
                        "test_seconds": 1.0,
                        "agreement": 1.0,
                        "largest_difference": 0.0,
                    }
                )
                times.append(
                    {
                        "runtime": path.relative_to(folder).as_posix(),
                        "median_ms": milliseconds / share,
                    }
                )
            record = {"variant": variant, "seed": 0, "steps": [], "macs": 10_000}
            write_json(folder / variant / "seed-0" / RECORD, {**record, "artifacts": artifacts})
        write_json(folder / "latency" / "seed-0" / RECORD, {"latency": times})
        write_json(
            folder / "run.json",
            {
                "name": "digits",
                "pipeline": {
                    "name": "digits",
                    "formats": list(FORMATS),
                    "variants": {variant: [] for variant in variants},
                    **pipeline,
                },
                "seeds": [0],
                "data": "digits",
                "sessions": [{"machine": {"processor": processor}}],
            },
        )
        return folder

    return run


@pytest.fixture
def budget(tmp_path) -> Callable[[str], Path]:
    def write(text: str = BUDGET) -> Path:
        file = tmp_path / "budget.toml"
        file.write_text(text)
        return file

    return write


def _check(*arguments: str | Path, **environment: str) -> Result:
    words = ["check", *map(str, arguments)]
    return CliRunner().invoke(main, words, env=environment, prog_name="tfprune")


class TestKept:
    def test_prints_an_aligned_table_and_a_count(self, make, budget):
        run = make()
        result = _check(run, "--budget", budget())
        assert result.exit_code == 0, result.output
        assert result.stdout == TABLE
        assert result.stderr == f"written: {run / 'budget.xml'}\nwritten: {run / 'budget.md'}\n"

    def test_writes_xml_and_markdown_beside_the_run(self, make, budget):
        run, file = make(), budget()
        _check(run, "--budget", file)
        assert (run / "budget.md").read_text() == (
            "## Budget of digits: kept\n"
            "\n"
            f"4 limits kept, 0 broken, 0 missing. Judged by {_escaped(file)}.\n"
            "\n"
            "| rule | variant | artifact | figure | measured | limit | margin | verdict |\n"
            "|:--|:--|:--|:--|--:|:--|--:|:--|\n"
            "| #1 | dense | tflite-int8 | accuracy | 95.00% | at least 90.00% | +5.00 points "
            "| kept |\n"
            "| #1 | weights-80 | tflite-int8 | accuracy | 94.00% | at least 90.00% | +4.00 points "
            "| kept |\n"
            "| #2 | weights-80 | tflite | accuracy | 94.00% "
            "| at most 2.00 points below dense = 93.00% | +1.00 points | kept |\n"
            "| #2 | weights-80 | tflite | gzip | 12.0 KiB | at most 0.5 times dense = 20.0 KiB "
            "| +8.0 KiB | kept |\n"
        )
        xml = (run / "budget.xml").read_text()
        assert xml.startswith('<?xml version="1.0" encoding="utf-8"?>\n<testsuites name="tfprune')
        assert 'tests="4" failures="0" errors="0"' in xml

    def test_says_the_same_every_time(self, make, budget):
        run, file = make(), budget()
        results = []
        for _ in range(2):
            result = _check(run, "--budget", file)
            written = [(run / name).read_bytes() for name in ("budget.xml", "budget.md")]
            results.append((result.output, written))
        assert results[0] == results[1]

    def test_as_json_is_one_document(self, make, budget):
        run, file = make(), budget()
        result = _check(run, "--budget", file, "--json")
        document = json.loads(result.stdout)
        assert {key: value for key, value in document.items() if key != "verdicts"} == {
            "run": "digits",
            "budget": str(file),
            "baseline": None,
            "kept": 4,
            "broken": 0,
            "missing": 0,
        }
        assert document["verdicts"][3] == {
            "rule": 2,
            "variant": "weights-80",
            "artifact": "tflite",
            "figure": "bytes_gzip",
            "limit": "max_ratio",
            "given": 0.5,
            "against": "dense",
            "verdict": "kept",
            "value": 12_288.0,
            "deviation": None,
            "seeds": 1,
            "worst_seed": None,
            "reference": 40_960.0,
            "bound": 20_480.0,
            "margin": 8_192.0,
            "source": "weights-80/seed-0/record.json",
            "reason": "",
            "device": None,
            "told": "rule #2: weights-80 tflite: gzip 12.0 KiB, at most 0.5 times dense = "
            "20.0 KiB is asked (weights-80/seed-0/record.json)",
        }

    def test_files_go_where_they_are_asked_to(self, make, budget, tmp_path):
        run, xml, summary = make(), tmp_path / "out" / "j.xml", tmp_path / "out" / "s.md"
        result = _check(run, "--budget", budget(), "--junit", xml, "--summary", summary)
        assert result.stderr == f"written: {xml}\nwritten: {summary}\n"
        assert xml.is_file()
        assert summary.is_file()
        assert not list(run.glob("budget.*"))

    def test_the_summary_is_appended_to_the_page_of_the_job(self, make, budget, tmp_path):
        run, page = make(), tmp_path / "page.md"
        page.write_text("before\n")
        _check(run, "--budget", budget(), GITHUB_STEP_SUMMARY=str(page))
        assert page.read_text() == "before\n" + (run / "budget.md").read_text()

    def test_the_pipelines_own_budget_is_the_default(self, make):
        run = make(budget={"rules": [{"macs": {"max": 10_000.0, "min": None}}]})
        result = _check(run)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith("\n4 limits kept, 0 broken, 0 missing\n")
        assert "Judged by the pipeline's own budget." in (run / "budget.md").read_text()

    def test_a_terminal_gets_colours_unless_it_wants_none(self, make, budget):
        words = ["check", str(make()), "--budget", str(budget())]
        coloured = CliRunner().invoke(main, words, color=True)
        assert "\x1b[32m#1" in coloured.stdout
        plain = CliRunner().invoke(main, words, color=True, env={"NO_COLOR": "1"})
        assert plain.stdout == TABLE


class TestBaseline:
    RULES = """
    [[rules]]
    accuracy = { max_drop = 0, min_ratio = 1 }
    bytes_gzip = { max_rise = 0, max_ratio = 1 }
    latency_ms = { max_ratio = 1 }
    """

    def test_an_equal_run_keeps_everything(self, make, budget):
        run, old = make(), make(name="old")
        result = _check(run, "--budget", budget(self.RULES), "--baseline", old)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith("\n20 limits kept, 0 broken, 0 missing\n")
        assert "note" not in result.stderr
        assert f"Baseline: {_escaped(old)}." in (run / "budget.md").read_text()

    def test_a_worse_run_does_not(self, make, budget):
        run, old = make({"dense": (0.94, 40_960, 0.2)}), make(name="old")
        result = _check(run, "--budget", budget(self.RULES), "--baseline", old, "--json")
        assert result.exit_code == 1
        broken = [each for each in json.loads(result.stdout)["verdicts"] if each["margin"] < 0]
        assert [(each["artifact"], each["limit"]) for each in broken] == [
            ("tflite", "max_drop"),
            ("tflite", "min_ratio"),
            ("tflite-int8", "max_drop"),
            ("tflite-int8", "min_ratio"),
        ]

    def test_another_machine_and_a_needless_baseline_are_noted(self, make, budget):
        run, old = make(), make(name="old", processor="another")
        result = _check(run, "--budget", budget(self.RULES), "--baseline", old)
        assert result.stderr.startswith(
            "note: the baseline was timed on another machine, so its latency says little: "
            'compare within the run, with against = "VARIANT"\n'
        )
        result = _check(run, "--budget", budget(), "--baseline", old)
        assert result.stderr.startswith("note: no rule compares with the baseline\n")


class TestNotKept:
    """Results stay on stdout; the last line of stderr says what is wrong."""

    def _fails(self, code: int, *arguments: str | Path) -> tuple[str, str]:
        result = _check(*arguments)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        line = result.stderr.splitlines()[-1]
        assert line.startswith("Error: ")
        return result.stdout, line.removeprefix("Error: ")

    def test_broken_exits_1(self, make, budget):
        run = make({**PLAIN, "weights-80": (0.925, 12_288, 0.2)})
        stdout, said = self._fails(1, run, "--budget", budget())
        assert said == (
            "digits: 1 limit is broken: rule #2: weights-80 tflite: accuracy 92.50%, "
            "but at most 2.00 points below dense = 93.00% is asked: 0.50 points too little "
            "(weights-80/seed-0/record.json)"
        )
        assert stdout.splitlines()[3].endswith("-0.50 points  broken")
        assert stdout.endswith("\n3 limits kept, 1 broken, 0 missing\n")
        assert "## Budget of digits: broken\n" in (run / "budget.md").read_text()
        assert "| -0.50 points | **broken** |\n" in (run / "budget.md").read_text()
        assert 'failures="1" errors="0"' in (run / "budget.xml").read_text()

    def test_missing_exits_2(self, make, budget):
        run = make()
        text = '[[rules]]\nvariant = "weigths-*"\nmacs = { max = 1, min = 1 }'
        stdout, said = self._fails(2, run, "--budget", budget(text))
        reason = "rule #1: no variant of the run is called 'weigths-*': did you mean 'weights-80'?"
        assert said == f"digits: 2 limits are not to be judged: {reason} (and 1 more)"
        assert stdout == (
            "rule  variant    artifact  figure  measured  limit       margin  verdict\n"
            "#1    weigths-*  *         MACs              at least 1          missing\n"
            "#1    weigths-*  *         MACs              at most 1           missing\n"
            "\n"
            f"missing: {reason}\n"
            "0 limits kept, 0 broken, 2 missing\n"
        )
        markdown = (run / "budget.md").read_text()
        assert "## Budget of digits: missing figures\n" in markdown
        assert "| #1 | weigths-\\* | \\* | MACs |  | at least 1 |  | **missing** |\n" in markdown
        assert markdown.endswith("\n\n- " + reason.replace("*", "\\*") + "\n")

    def test_broken_wins_over_missing(self, make, budget):
        text = BUDGET + "[[rules]]\nmacs = { max = 1 }\n[[rules]]\nmacs = { max_ratio = 1 }"
        stdout, said = self._fails(1, make(), "--budget", budget(text))
        assert said.startswith("digits: 4 limits are broken: rule #3: dense tflite: MACs 10,000")
        assert stdout.endswith("\n4 limits kept, 4 broken, 4 missing\n")

    def test_no_baseline_where_one_is_needed(self, make, budget):
        text = '[[rules]]\nvariant = "dense"\nartifact = "tflite"\naccuracy = { max_drop = 0 }'
        _, said = self._fails(2, make(), "--budget", budget(text))
        assert said == (
            "digits: 1 limit is not to be judged: rule #1: accuracy of dense tflite has nothing "
            'to be compared with: give a baseline, or say against = "VARIANT" in the rule'
        )

    def test_a_variant_that_is_not_finished(self, make, budget):
        run = make()
        shutil.rmtree(run / "weights-80")
        _, said = self._fails(2, run, "--budget", budget("[[rules]]\nmacs = { max = 10_000 }"))
        assert said == (
            "digits: 2 limits are not to be judged: rule #1: MACs of weights-80 tflite is missing "
            "for seed 0: run the pipeline to its end (and 1 more)"
        )

    def test_one_seed_of_several_is_not_the_run(self, make, budget):
        """The first seed alone keeps every limit; what counts are all that the pipeline has."""
        file = budget("[[rules]]\nmacs = { max = 10_000 }")
        for seeds in ([0, 1, 2], [0, 1]):
            run = make(seeds=seeds)
            result = _check(run, "--budget", file)
            assert result.exit_code == 2
            lacking = ", ".join(str(seed) for seed in seeds[1:])
            reason = f"MACs of dense tflite is missing for seed {lacking}: run the pipeline to its"
            assert reason in result.stdout
            assert "missing: digits: dense is missing for seed" in result.stderr
        assert _check(make(seeds=[0]), "--budget", file).exit_code == 0

    def test_seeds_that_the_run_was_asked_for_all_count(self, make, budget):
        run = make()
        record = json.loads((run / "run.json").read_text())
        write_json(run / "run.json", record | {"seeds": [0, 1]})
        _, said = self._fails(2, run, "--budget", budget("[[rules]]\nmacs = { max = 10_000 }"))
        assert "is missing for seed 1" in said

    @pytest.mark.parametrize("last", ["quantize", "export"])
    def test_a_variant_is_asked_for_what_its_last_step_says(self, make, budget, last):
        """No other format of the pipeline is missing there, and that one is."""
        steps = {
            "int8": {"kind": "quantize", "to": "int8"}
            if last == "quantize"
            else {"kind": "export", "formats": ["tflite-int8"]}
        }
        run = make(formats=["tflite", "tflite-int8"], steps=steps)
        record = json.loads((run / "run.json").read_text())
        record["pipeline"]["variants"]["weights-80"] = ["int8"]
        write_json(run / "run.json", record)
        path = run / "weights-80" / "seed-0" / RECORD
        delivery = json.loads(path.read_text())
        write_json(path, delivery | {"artifacts": delivery["artifacts"][1:]})
        file = budget("[[rules]]\nmacs = { max = 10_000 }")
        result = _check(run, "--budget", file)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith("\n3 limits kept, 0 broken, 0 missing\n")
        # A rule for a format is for the variants that are delivered in it.
        some = budget('[[rules]]\nartifact = "tflite"\nmacs = { max = 10_000 }')
        assert _check(run, "--budget", some).stdout.endswith(
            "\n1 limits kept, 0 broken, 0 missing\n".replace("1 limits", "1 limit")
        )
        write_json(path, delivery | {"artifacts": delivery["artifacts"][:1]})
        self._fails(2, run, "--budget", budget("[[rules]]\nmacs = { max = 10_000 }"))

    @pytest.mark.parametrize("value", [None, float("nan")])
    @pytest.mark.parametrize("limit", ["min = 0", "max = 1", "max_drop = 1", "min_ratio = 0"])
    def test_what_is_no_number_keeps_no_limit(self, make, budget, value, limit):
        run, old = make(), make(name="old")
        for folder in (run, old):
            path = folder / "dense" / "seed-0" / RECORD
            record = json.loads(path.read_text())
            for artifact in record["artifacts"]:
                artifact["nonzero_parameters"] = value
            write_json(path, record)
        rule = f'[[rules]]\nvariant = "dense"\nsparsity = {{ {limit} }}'
        result = _check(run, "--budget", budget(rule), "--baseline", old)
        assert result.exit_code in (1, 2)
        assert "0 limits kept" in result.stdout or result.stdout == ""

    def test_as_json_stays_one_document(self, make, budget):
        stdout, _ = self._fails(
            1, make(), "--budget", budget("[[rules]]\nmacs = { max = 1 }"), "--json"
        )
        assert json.loads(stdout)["broken"] == 4


class TestErrors:
    """One line that says what, where and what to do; nothing printed, nothing written."""

    def _fails(self, code: int, run: Path, *arguments: str | Path, **environment: str) -> str:
        result = _check(run, *arguments, **environment)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert not list(run.glob("budget.*"))
        return result.stderr.strip().splitlines()[-1].removeprefix("Error: ")

    def test_no_budget_at_all(self, make):
        run = make()
        assert self._fails(2, run) == (
            f"{run} has no budget of its own: give --budget FILE, or add [budget] to its pipeline "
            "file and run that again"
        )

    def test_a_mistake_in_the_budget(self, make, budget):
        file = budget("[[rules]]\nacuracy = { min = 0.9 }")
        assert self._fails(2, make(), "--budget", file) == (
            f"{file}: rules#1.acuracy is unknown: did you mean 'accuracy'?"
        )

    def test_a_missing_budget(self, make, tmp_path):
        file = tmp_path / "none.toml"
        assert self._fails(1, make(), "--budget", file) == (
            f"{file} cannot be read (No such file or directory): check the path"
        )

    def test_no_run_and_no_baseline(self, make, budget, tmp_path):
        file, empty = budget(), tmp_path / "empty"
        for arguments in (
            (empty, "--budget", file),
            (make(), "--budget", file, "--baseline", empty),
        ):
            assert self._fails(1, *arguments).startswith(f"{empty} holds no finished variant: ")

    def test_an_artifact_that_was_changed(self, make, budget):
        run = make()
        changed = run / "dense" / "seed-0" / "model.tflite"
        changed.write_text("other")
        assert self._fails(1, run, "--budget", budget()) == (
            f"{changed} is not the file that was measured: delete its folder and run again"
        )

    def test_files_that_cannot_be_written(self, make, budget, tmp_path):
        run, file = make(), budget()
        for option in ("--junit", "--summary"):
            result = _check(run, "--budget", file, option, file / "x")
            assert result.exit_code == 1
            assert result.stderr.splitlines()[-1] == (
                f"Error: {file / 'x'} cannot be written (File exists): "
                "give a place you can write to"
            )
        result = _check(run, "--budget", file, GITHUB_STEP_SUMMARY=str(file / "page"))
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == (
            f"Error: {file / 'page'} cannot be written (Not a directory): "
            "set GITHUB_STEP_SUMMARY to a file you can write to, or unset it"
        )


def test_it_does_not_wait_for_tensorflow(make, budget):
    code = (
        "import sys; from tfprune.cli import main; "
        "main(sys.argv[1:], standalone_mode=False); "
        "assert not {'tensorflow', 'keras', 'tfprune.pipeline.spec'} & set(sys.modules)"
    )
    words = ["check", str(make()), "--budget", str(budget())]
    environment = {key: value for key, value in os.environ.items() if "COLOR" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == TABLE


def test_a_real_run_is_no_worse_than_itself(tiny_run, tmp_path, budget):
    run = tmp_path / "tiny"
    shutil.copytree(tiny_run, run)
    result = _check(run, "--budget", budget(TestBaseline.RULES), "--baseline", tiny_run)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("\n60 limits kept, 0 broken, 0 missing\n")


def test_it_explains_itself():
    said = _check("--help")
    assert said.exit_code == 0
    assert said.stdout.startswith("Usage: tfprune check [OPTIONS] RUN\n")
    for option in ("--budget", "--baseline", "--junit", "--summary", "--json"):
        assert f"  {option} " in said.stdout
    assert "Exit code 0" in said.stdout


def _escaped(path: Path) -> str:
    return str(path).replace("_", "\\_")
