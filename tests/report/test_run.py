"""What a run plans and lacks is told by every reader; what is damaged is one line that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.report.fake import SESSION, fake_run, stop_early
from tfprune.cli import main
from tfprune.errors import TfpruneError
from tfprune.files import read_json, write_json
from tfprune.report import comparison, over_seeds, planned, read_run, render, write_report
from tfprune.report.run import Lacking, own_formats, planned_formats, planned_seeds

BUDGET = "[[rules]]\nmacs = { max = 1e12 }\n"


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _planning(run: Path, **pipeline: Any) -> Path:
    """The run with further keys in its recorded pipeline."""
    record = read_json(run / "run.json")
    record["pipeline"] |= pipeline
    write_json(run / "run.json", record)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three variants of two seeds, as keras and tflite; nobody may change it."""
    folder = tmp_path_factory.mktemp("runs") / "fake"
    return _planning(fake_run(folder, seeds=(0, 1)), formats=["keras", "tflite"])


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of it, to do with as one likes."""
    return shutil.copytree(whole, tmp_path / "runs" / "fake")


class TestPlanned:
    @pytest.mark.parametrize(
        ("last", "formats"),
        [
            (None, None),
            ({"kind": "train"}, None),
            ({"kind": "quantize"}, ("tflite-int8",)),
            ({"kind": "quantize", "to": "int8"}, ("tflite-int8",)),
            ({"kind": "quantize", "to": "float16"}, ("tflite-float16",)),
            ({"kind": "quantize", "to": "dynamic"}, ("tflite-dynamic",)),
            ({"kind": "quantize", "to": "int16x8"}, ("tflite-int16x8",)),
            ({"kind": "export", "formats": ["onnx", "keras"]}, ("onnx", "keras")),
        ],
    )
    def test_the_last_step_says_in_what_a_variant_is_delivered(self, last, formats):
        assert own_formats(last) == formats
        pipeline = {
            "steps": {"last": last or {"kind": "train"}},
            "variants": {"it": ["last"]},
            "formats": ["keras"],
        }
        assert planned_formats(pipeline) == {"it": formats or ("keras",)}

    @pytest.mark.parametrize(
        ("own", "asked", "planned"),
        [
            ([0, 1, 2], [0, 1, 2], [0, 1, 2]),
            # Part of the plan is done, and not the plan.
            ([0, 1, 2], [1], [0, 1, 2]),
            ([0], [0, 1], [0, 1]),
            ([0], [7], [7]),
            ([], [0, 1], [0, 1]),
        ],
    )
    def test_a_part_of_the_seeds_is_not_all_of_them(self, own, asked, planned):
        assert planned_seeds({"pipeline": {"seeds": own}, "seeds": asked}) == planned

    def test_a_whole_run_lacks_nothing(self, run):
        this = read_run(run)
        assert (this.lacking, this.untimed, this.notes()) == ((), (), [])


class TestLacking:
    def test_a_record_that_is_gone_is_a_row_and_a_line_everywhere(self, run):
        shutil.rmtree(run / "sparse" / "seed-1")
        this = read_run(run)
        assert this.lacking == (Lacking("sparse", 1, "keras"), Lacking("sparse", 1, "tflite"))
        line = "fake: sparse is missing for seed 1 (keras, tflite): run the pipeline to its end"
        assert this.notes() == [line]
        rows = planned(this)
        assert (len(comparison(this)), len(rows)) == (10, 12)
        assert rows[rows["accuracy"].isna()][["variant", "seed"]].drop_duplicates().values.tolist()
        shown = over_seeds(rows).set_index(["variant", "artifact"])
        assert shown.loc[("sparse", "tflite"), "seeds"] == "1 of 2"
        assert shown.loc[("dense", "tflite"), "seeds"] == "2 of 2"
        for form in ("table", "markdown", "csv", "json"):
            told = _run("compare", run, "--format", form)
            assert told.exit_code == 0
            assert told.stderr == f"missing: {line}\n"
        document = json.loads(told.stdout)
        assert [row for row in document if row["variant"] == "sparse" and row["seed"] == 1] == [
            {
                **dict.fromkeys(document[0], None),
                "run": "fake",
                "variant": "sparse",
                "seed": 1,
                "artifact": form,
            }
            for form in ("keras", "tflite")
        ]
        assert f"missing: {line}\n" in _run("report", run).stderr
        assert f"- {line}\n" in (run / "report.md").read_text()
        assert f"<li>{line}</li>" in (run / "report.html").read_text()
        assert "sparse,1,keras,," in (run / "comparison.csv").read_text()

    def test_a_variant_without_any_seed_says_missing(self, run):
        shutil.rmtree(run / "dense")
        text = _run("compare", run).stdout
        row = next(line for line in text.splitlines() if line.startswith("dense"))
        assert row.split() == ["dense", "keras", "0", "of", "2", "missing"]
        write_report(run)
        page = (run / "report.html").read_text()
        assert "changes and ratios are against sparse, because dense is missing" in page

    def test_other_formats_than_planned_are_lacking(self, run):
        _planning(run, formats=["keras", "tflite", "tflite-int8"])
        assert {each.artifact for each in read_run(run).lacking} == {"tflite-int8"}
        assert len(read_run(run).lacking) == 6

    def test_a_run_that_does_not_say_its_formats_lacks_whole_deliveries(self, tmp_path):
        run = fake_run(tmp_path / "fake")
        shutil.rmtree(run / "slim")
        assert read_run(run).lacking == (Lacking("slim", 0, ""),)
        file = tmp_path / "b.toml"
        file.write_text('[[rules]]\nartifact = "tflite"\nmacs = { max = 1e12 }')
        result = _run("check", run, "--budget", file)
        assert result.exit_code == 2
        assert "slim is missing: run the pipeline to its end" in result.stdout

    def test_a_seed_that_was_not_timed_is_named(self, run):
        shutil.rmtree(run / "latency" / "seed-1")
        said = "fake: latency is missing for seed 1: run the pipeline to its end"
        assert read_run(run).notes() == [said]

    def test_a_session_that_did_not_end_is_named(self, tmp_path):
        run = fake_run(tmp_path / "fake", sessions=[SESSION, SESSION | {"ended": None}])
        (line,) = read_run(run).notes()
        assert line.startswith("fake: its last session was killed or is going on")

    def test_of_very_many_the_first_are_named(self, run):
        _planning(run, variants={f"v{place}": [] for place in range(20)} | {"dense": ["dense"]})
        notes = read_run(run).notes()
        assert len(notes) == 9
        assert notes[-1] == "fake: 12 more variants are missing"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "{}": lambda path: path.write_text("{}"),
    "[]": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "deep": lambda path: path.write_text("[" * 100_000),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
}
FILES = [
    "run.json",
    "dense/seed-0/record.json",
    "dense/seed-0/sparsity.csv",
    "dense/seed-0/model.tflite",
    "steps/dense-000000000000/record.json",
    "latency/seed-0/record.json",
]


@pytest.mark.reliability("run folders that are damaged or of another version", "refused")
class TestDamage:
    @pytest.fixture(scope="class")
    def said(self, whole, tmp_path_factory) -> dict[str, str]:
        """What commands print of a whole run."""
        run = shutil.copytree(whole, tmp_path_factory.mktemp("said") / "fake")
        return {command: _run(*words).stdout for command, words in self._commands(run).items()}

    def _commands(self, run: Path) -> dict[str, list[str | Path]]:
        budget = run.parent / "b.toml"
        budget.write_text(BUDGET + "[[rules]]\nlatency_ms = { max = 1e9 }")
        return {
            "compare": ["compare", run, "--format", "csv"],
            "check": ["check", run, "--budget", budget],
            "runs": ["runs", "--out", run.parent],
            "gc": ["runs", "gc", "--dry-run", run],
            "report": ["report", run],
        }

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_every_reader_says_the_same_or_what_is_wrong(self, run, said, name, damage):
        path = run / name
        DAMAGES[damage](path)
        commands = self._commands(run)
        if damage not in ("deleted", "{}"):
            # It reads as `compare` does, and drawing takes its time.
            del commands["report"]
        told = 0
        for command, words in commands.items():
            result = _run(*words)
            errors = result.stderr
            assert result.exit_code in (0, 1, 2)
            assert "unexpected" not in errors
            assert "Traceback" not in errors
            named = path.name in errors or "missing" in errors
            told += named
            # `report` prints a path, and the size of a run on disk is no figure of it.
            same = command in ("runs", "gc") or result.stdout == said[command]
            assert named or (result.exit_code == 0 and same), (command, errors)
            if command == "check" and named:
                assert result.exit_code in (1, 2)
        assert told

    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            ("run.json", ["pipeline"]),
            ("run.json", ["pipeline", "variants"]),
            ("run.json", ["seeds"]),
            ("run.json", ["sessions"]),
            *(
                ("dense/seed-0/record.json", [key])
                for key in ("variant", "seed", "steps", "macs", "artifacts")
            ),
            *(
                ("dense/seed-0/record.json", ["artifacts", 0, key])
                for key in (
                    "format",
                    "path",
                    "sha256",
                    "bytes_raw",
                    "bytes_gzip",
                    "accuracy",
                    "loss",
                    "parameters",
                    "nonzero_parameters",
                    "test_seconds",
                )
            ),
            ("steps/dense-000000000000/record.json", ["step"]),
            ("latency/seed-0/record.json", ["latency"]),
            ("latency/seed-0/record.json", ["latency", 0, "median_ms"]),
        ],
    )
    @pytest.mark.parametrize("value", ["gone", [[]], {"a": {}}, True])
    def test_a_key_that_is_missing_or_of_another_kind(self, run, name, keys, value):
        document = read_json(run / name)
        table = document
        for key in keys[:-1]:
            table = table[key]
        if value == "gone":
            del table[keys[-1]]
        else:
            table[keys[-1]] = value
        write_json(run / name, document)
        with pytest.raises(TfpruneError) as caught:
            read_run(run)
        said = str(caught.value)
        assert said.startswith(f"{run / name} is damaged (")
        assert said.endswith("): delete it and run again")

    @pytest.mark.parametrize(
        ("key", "value"), [("accuracy", 1.5), ("accuracy", -1), ("bytes_gzip", -1)]
    )
    def test_a_figure_that_cannot_be(self, run, key, value):
        path = run / "dense/seed-0/record.json"
        record = read_json(path)
        record["artifacts"][0][key] = value
        write_json(path, record)
        with pytest.raises(TfpruneError, match=rf"artifacts#1\.{key} = "):
            read_run(run)

    def test_a_record_of_another_place_is_not_believed(self, run):
        shutil.copy(run / "sparse/seed-0/record.json", run / "dense/seed-0/record.json")
        with pytest.raises(TfpruneError, match=r"it is the record of sparse/seed-0"):
            read_run(run)

    def test_a_history_whose_columns_end_apart(self, run):
        path = run / "steps/dense-000000000000/record.json"
        record = read_json(path)
        del record["history"]["loss"][-1]
        write_json(path, record)
        with pytest.raises(TfpruneError, match="columns of different lengths"):
            read_run(run)

    def test_a_best_epoch_that_was_not_trained(self, run):
        stop_early(run, "dense", best_epoch=9)
        with pytest.raises(TfpruneError, match="best_epoch = 9 is not in the history"):
            read_run(run)

    def test_a_path_out_of_its_folder_is_not_followed(self, run):
        path = run / "dense/seed-0/record.json"
        record = read_json(path)
        record["artifacts"][0]["path"] = "../../secret"
        write_json(path, record)
        with pytest.raises(TfpruneError, match=r"artifacts#1\.path"):
            read_run(run)


def test_figures_that_were_not_measured_are_shown_as_such(run):
    path = run / "dense/seed-0/record.json"
    record = read_json(path)
    record["macs"] = None
    for artifact in record["artifacts"]:
        artifact |= {"parameters": None, "nonzero_parameters": None}
    write_json(path, record)
    table = comparison(read_run(run))
    assert table["macs"].isna().sum() == 2
    assert table["sparsity"].isna().sum() == 2
    write_report(run)
    assert render(table, "csv")
