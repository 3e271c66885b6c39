"""`tfprune run`, `pipeline`, `runs` and `report`: what they print, word for word."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tfprune.cli import main
from tfprune.vocabulary import FORMATS

PIPELINES = Path(__file__).parents[2] / "pipelines"


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _error(result: Result) -> str:
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


@pytest.fixture
def file(tiny_run, tmp_path):
    """The tiny pipeline as a file, and a copy of its finished run beside it."""
    pipeline = json.loads((tiny_run / "run.json").read_text())["pipeline"]
    path = tmp_path / "tiny.toml"
    path.write_text(toml({key: value for key, value in pipeline.items() if value is not None}))
    shutil.copytree(tiny_run, tmp_path / "saved_models" / "tiny")
    return path


def toml(document: dict) -> str:
    """TOML for plain values: JSON's notation for scalars and lists is TOML's."""
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(document[key])}" for key in document if key not in tables]
    for key, table in tables.items():
        table = {name: value for name, value in table.items() if value is not None}
        inner = {name: value for name, value in table.items() if isinstance(value, dict)}
        lines.append(f"[{key}]")
        lines += [f"{name} = {json.dumps(table[name])}" for name in table if name not in inner]
        for name, values in inner.items():
            lines.append(f"[{key}.{name}]")
            lines += [
                f"{each} = {json.dumps(value)}"
                for each, value in values.items()
                if value not in (None, {})
            ]
    return "\n".join(lines)


def test_a_finished_run_prints_the_table_and_where_the_report_is(file, tmp_path):
    result = _run("run", file, "--out", tmp_path / "saved_models")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("variant ")
    directory = tmp_path / "saved_models" / "tiny"
    assert result.stdout.endswith(
        f"\nreport: {directory / 'report.html'}\ntry it: tfprune app {directory}\n"
    )
    assert result.stderr == ""


def test_as_json_it_is_one_document(file, tmp_path):
    result = _run("run", file, "--out", tmp_path / "saved_models", "--json")
    assert len(json.loads(result.stdout)) == 12


def test_a_dry_run_of_a_finished_run_has_nothing_to_do(file, tmp_path):
    result = _run("run", file, "--out", tmp_path / "saved_models", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["task", "state", "time", "disk"]
    assert lines[1].split() == ["dense,", "seed", "0:", "dense", "(train)", "done"]
    assert lines[-1] == "0 of 9 to do"


def test_a_dry_run_with_another_setting_shows_what_it_would_repeat(file, tmp_path):
    arguments = ["--out", tmp_path / "saved_models", "--dry-run", "--set", "sparse.sparsity=0.5"]
    result = _run("run", file, *arguments)
    lines = result.stdout.splitlines()
    again = [line.partition("  to do")[0].strip() for line in lines if "to do" in line][:-1]
    assert again == [
        "sparse, seed 0: sparse (prune)",
        "sparse, seed 0: export and measure",
        "both, seed 0: sparse (prune)",
        "both, seed 0: export and measure",
        "seed 0: latency of all artifacts, in turn",
    ]
    assert lines[-1].startswith("5 of 9 to do: about ")
    document = json.loads(_run("run", file, *arguments, "--json").stdout)
    assert [row["state"] for row in document].count("to do") == 5


def test_a_dry_run_elsewhere_says_what_the_store_has(file, tmp_path):
    kept = ["--store", tmp_path / "kept"]
    result = _run("run", file, "--out", tmp_path / "saved_models", *kept)
    assert result.exit_code == 0, result.output
    lines = _run("run", file, "--out", tmp_path / "new", *kept, "--dry-run").stdout.splitlines()
    assert len([line for line in lines if "  in the store" in line]) == 8
    assert lines[-1].startswith("1 of 9 to do: about ")


def test_check_says_what_a_file_holds():
    result = _run("pipeline", "check", PIPELINES / "digits.toml")
    assert result.stdout == (
        f"{PIPELINES / 'digits.toml'}: vgg on digits, 4 variants (dense, weights-80, "
        "filters-lasso, both), seeds 0\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"vgg"', '"vggg"', "model: unknown model 'vggg': did you mean 'vgg'?"),
        ("width = 16", "wdith = 16", "model: unknown option 'wdith' of vgg: did you mean 'width'?"),
        (
            'importance = "lasso"',
            'importance = "laso"',
            "steps.slim.importance = 'laso' is unknown: did you mean 'lasso'?",
        ),
        (
            '"tflite-int8"]',
            '"tflite-int4"]',
            "formats#4 = 'tflite-int4' is unknown: did you mean 'tflite-int8'?",
        ),
    ],
)
def test_check_names_file_key_and_what_is_allowed(tmp_path, old, new, said):
    text = (PIPELINES / "digits.toml").read_text()
    assert old in text
    file = tmp_path / "p.toml"
    file.write_text(text.replace(old, new, 1))
    result = _run("pipeline", "check", file)
    assert result.exit_code == 2
    assert _error(result) == f"Error: {file}: {said}"


def test_schema_is_the_committed_file():
    assert _run("pipeline", "schema").stdout == (PIPELINES / "schema.json").read_text()


def test_new_writes_a_file_that_check_accepts(tmp_path):
    file = tmp_path / "mine.toml"
    result = _run("pipeline", "new", file, "--data", "cifar10", "--model", "resnet20")
    assert result.stdout == f"{file}: run it with `tfprune run {file}`\n"
    assert tomllib.loads(file.read_text())["model"]["name"] == "resnet20"
    assert _run("pipeline", "check", file).exit_code == 0
    assert _run("pipeline", "new", file).exit_code == 2


def test_runs_lists_and_gc_frees(file, tmp_path):
    out = tmp_path / "saved_models"
    lines = _run("runs", "--out", out).stdout.splitlines()
    assert lines[0].split()[:4] == ["run", "state", "done", "tasks"]
    assert lines[1].split()[:4] == ["tiny", "finished", "9", "9"]
    orphan = out / "tiny" / "steps" / "old-0000"
    orphan.mkdir()
    (orphan / "model.keras").write_bytes(b"12345")
    expected = f"{orphan}: 5 bytes\n5 bytes "
    assert _run("runs", "gc", "--out", out, "--dry-run").stdout == expected + "to free\n"
    assert orphan.exists()
    assert _run("runs", "gc", out / "tiny").stdout == expected + "freed\n"
    assert not orphan.exists()
    assert json.loads(_run("runs", "gc", out / "tiny", "--json").stdout) == []


def test_where_there_are_no_runs(tmp_path):
    result = _run("runs", "--out", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"no runs in {tmp_path}\n"
    assert _run("runs", "--out", tmp_path, "--json").stdout == "[]\n"


def test_report_is_written_anew(file, tmp_path):
    run = tmp_path / "saved_models" / "tiny"
    (run / "report.html").unlink()
    result = _run("report", run)
    assert result.stdout == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_report_of_what_is_no_run_is_one_line(tmp_path):
    result = _run("report", tmp_path)
    assert result.exit_code == 1
    assert _error(result) == (
        f"Error: {tmp_path} holds no finished variant: give the directory of a run, such as "
        "saved_models/digits, or run its pipeline first"
    )


def test_check_looks_at_what_the_file_names(tmp_path):
    text = (PIPELINES / "digits.toml").read_text()
    file = tmp_path / "p.toml"
    for old, new, code, said in (
        ('"digits"', '"cifr10"', 2, "unknown data set 'cifr10': did you mean 'cifar10'?"),
        (
            'name = "vgg"',
            'name = "n.keras"',
            2,
            "model: n.keras is a file, which has no option width and blocks",
        ),
    ):
        changed = text.replace('name = "digits"\n', 'name = "digits_run"\n', 1).replace(old, new)
        file.write_text(changed)
        result = _run("pipeline", "check", file)
        assert result.exit_code == code
        assert _error(result).startswith(f"Error: {file}: {said}")


def test_check_reads_a_file_with_a_byte_order_mark_and_names_unused_steps(tmp_path):
    text = (PIPELINES / "digits.toml").read_text()
    file = tmp_path / "p.toml"
    file.write_text(
        "\ufeff" + text + '\n[steps.spare]\nkind = "quantize-weights"\n', encoding="utf-8"
    )
    result = _run("pipeline", "check", file)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"note: {file}: no variant has the steps spare\n"


def test_check_of_thousands_of_rounds_is_one_line(tmp_path):
    text = (PIPELINES / "lottery_conv2.toml").read_text()
    file = tmp_path / "p.toml"
    file.write_text(text)
    settings = [f"--set=rounds.{name}.times=3000" for name in tomllib.loads(text)["rounds"]]
    result = _run("pipeline", "check", file, *settings[:1])
    assert result.exit_code == 0, result.output
    assert " more), seeds" in result.stdout
    assert len(result.stdout) < 4000


def test_a_dry_run_takes_every_format(file, tmp_path):
    formats = json.dumps([name for name in FORMATS if name != "tflite-recipe"])
    result = _run(
        "run", file, "--out", tmp_path / "new", "--dry-run", "--set", f"formats={formats}"
    )
    assert result.exit_code == 0, result.output
    assert "to do: about" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("seeds", ["-1", "4294967296", "0,0"])
def test_seeds_of_the_command_line_are_checked(file, tmp_path, seeds):
    for more in ([], ["--dry-run"]):
        result = _run("run", file, "--out", tmp_path / "new", f"--seeds={seeds}", *more)
        assert result.exit_code == 2
        assert _error(result).startswith("Error: seed")
    assert not (tmp_path / "new").exists()


def test_runs_names_a_damaged_one(file, tmp_path):
    out = tmp_path / "saved_models"
    shutil.copytree(out / "tiny", out / "a")
    (out / "a" / "run.json").write_text("{}")
    result = _run("runs", "--out", out)
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [
        ["a", "damaged"],
        ["tiny", "finished"],
    ]
    assert result.stderr == (
        f"{out / 'a' / 'run.json'} is damaged (pipeline is missing (and 2 more)): "
        "delete it and run again\n"
    )
    # What is damaged stops it before anything of any run is deleted.
    (out / "tiny" / "steps" / "old-0000").mkdir()
    result = _run("runs", "gc", "--out", out)
    assert result.exit_code == 1
    assert (out / "tiny" / "steps" / "old-0000").exists()


def test_a_run_on_top_of_a_damaged_record_says_which(file, tmp_path):
    out = tmp_path / "saved_models"
    for name in ("run.json", "dense/seed-0/record.json"):
        path = out / "tiny" / name
        whole = path.read_text()
        path.write_text("{}")
        result = _run("run", file, "--out", out)
        assert result.exit_code == 1
        assert _error(result).startswith(f"Error: {path} is damaged (")
        path.write_text(whole)
    (out / "tiny" / "data.json").write_text("[]")
    assert _run("run", file, "--out", out).exit_code == 0


def test_check_asks_whether_the_budget_can_be_judged():
    result = _run("pipeline", "check", PIPELINES / "digits.toml", "--set", 'formats=["keras"]')
    assert result.exit_code == 2
    assert _error(result) == (
        f"Error: {PIPELINES / 'digits.toml'}: budget: rule #1: dense has no artifact 'tflite*': "
        "choose one of keras"
    )
