"""`tfprune slim`: plans are printed, read back and applied; wrong calls are one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result
from keras import layers

from tfprune.cli import main
from tfprune.devices import vela
from tfprune.vocabulary import IMPORTANCES


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _fails(code: int, *arguments: str | Path) -> str:
    result = _run("slim", *arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def _saved(path: Path, width: int = 8) -> Path:
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(width, 3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(6, 3, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, name="logits"),
        ],
        name="tiny",
    ).save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("slim") / "m.keras")


@pytest.fixture(scope="module")
def plan(model: Path) -> Path:
    result = _run("slim", model, "--filters", "0.5", "--plan-only", "--json")
    assert result.exit_code == 0, result.output
    path = model.with_name("plan.json")
    path.write_text(result.stdout)
    return path


def _filters(path: Path) -> dict[str, int]:
    loaded = keras.saving.load_model(path)
    return {name: loaded.get_layer(name).filters for name in ("first", "second")}


def test_a_plan_is_one_document_and_nothing_is_written(model: Path, plan: Path) -> None:
    assert {each.name for each in model.parent.iterdir()} >= {"m.keras", "plan.json"}
    assert not list(model.parent.glob("*slim*"))
    document = json.loads(plan.read_text())
    assert document["model"] == "tiny"
    assert document["channels"] == {"first": 8, "second": 6, "logits": 10}
    assert document["kept"] == {"first": 4, "second": 3, "logits": 10}
    assert {path: len(gone) for path, gone in document["removed"].items()} == {
        "first": 4,
        "second": 3,
    }
    assert document["frozen"] == {"logits": "it is an output of the model"}
    for before, after in (document["macs"], document["parameters"]):
        assert 0 < after < before


def test_a_plan_does_what_its_target_does(model: Path, plan: Path, tmp_path: Path) -> None:
    at_once, by_plan = tmp_path / "a.keras", tmp_path / "b.keras"
    first = _run("slim", model, "--filters", "0.5", "--json", "-o", at_once)
    second = _run("slim", model, "--plan", plan, "--json", "-o", by_plan)
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    # What was planned is what was made.
    assert json.loads(first.stdout) == json.loads(second.stdout) == json.loads(plan.read_text())
    one, other = (keras.saving.load_model(path).get_weights() for path in (at_once, by_plan))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_a_plan_for_people(model: Path, plan: Path) -> None:
    """The same table for a target and for the plan made of it."""
    for said in (["--filters", "0.5"], ["--plan", plan]):
        result = _run("slim", model, *said, "--plan-only")
        assert result.exit_code == 0, result.output
        table, last = result.stdout.strip().split("\n\n")
        head, *rows = [line.split() for line in table.splitlines()]
        assert head == ["layer", "channels", "kept"]
        assert rows[-3:] == [["first", "8", "4"], ["second", "6", "3"], ["logits", "10", "10"]]
        assert last.endswith(" of the parameters would be left")
        assert " of the MACs, " in last


def test_what_is_said_is_done(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    limits = ["--exclude", "sec*", "--minimum", "3", "--round-to", "2"]
    assert _run("slim", model, "--filters", "0.2", *limits, "-o", out).exit_code == 0
    assert _filters(out) == {"first": 4, "second": 6}
    shares = ["--filters", "0.5", "--scope", "global", "--rounds", "2"]
    assert _run("slim", model, *shares, "-o", out).exit_code == 0
    assert sum(_filters(out).values()) == 7


@pytest.mark.parametrize("name", IMPORTANCES)
def test_every_importance_is_in_the_help_and_ranks(model: Path, name: str) -> None:
    assert f" {name}" in " ".join(_run("slim", "--help").stdout.split())
    data = ["--data", "digits"] if name == "taylor" else []
    asked = ["--macs", "0.6", "--importance", name, "--plan-only", "--json"]
    result = _run("slim", model, *asked, *data)
    assert result.exit_code == 0, result.output
    before, after = json.loads(result.stdout)["macs"]
    assert after <= 0.6 * before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--macs", "0.5"], "give the file to write, -o FILE.keras, or --plan-only"),
        (
            ["--macs", "0.5", "--plan-only", "-o", "x.keras"],
            "--plan-only writes nothing: leave out -o",
        ),
        (
            ["--macs", "0.5", "--plan", "p.json", "--plan-only"],
            "--plan p.json says what goes: leave out --macs",
        ),
        (
            ["--round-to", "1", "--dead", "--plan", "p.json", "-o", "x.keras"],
            "--plan p.json says what goes: leave out --dead and --round-to",
        ),
        (
            ["--macs", "0.5", "--importance", "taylor", "--plan-only"],
            "--importance taylor needs labelled examples: give --data NAME",
        ),
        (
            ["--plan-only"],
            "tfprune slim: give exactly one of filters, macs, params, latency, milliseconds, "
            "bytes, cycles, sram, flash and dead",
        ),
        (
            ["--macs", "0.5", "--exclude", "frist", "--plan-only"],
            "exclude: model 'tiny' has no layer 'frist': did you mean 'first'?",
        ),
        (
            ["--macs", "0.5", "--exclude", "pool", "--plan-only"],
            "exclude: 'pool' names no layer that makes channels: name the one before it that does",
        ),
        (
            ["--macs", "0.5", "--importance", "l3", "--plan-only"],
            "Invalid value for '--importance': 'l3' is not one of 'l1', 'l2', 'lasso', 'bn_gamma', "
            "'geometric_median', 'taylor', 'random'.",
        ),
        (
            ["--macs", "0.5", "--rounds", "0", "--plan-only"],
            "Invalid value for '--rounds': 0 is not in the range 1<=x<=1000.",
        ),
        (
            ["--macs", "0.01", "--exclude", "first", "--plan-only"],
            "macs=0.01 cannot be reached: the least is 0.393 of the original, since 1 layer is "
            "frozen (see `tfprune inspect`) and exclude=['first']",
        ),
    ],
)
def test_wrong_calls(model: Path, arguments: list[str], message: str) -> None:
    assert _fails(2, model, *arguments) == message


def test_plans_that_are_none(model: Path, plan: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "p.json", tmp_path / "x.keras"
    said = _fails(1, model, "--plan", file, "-o", out)
    assert said.startswith(f"{file} cannot be read (")
    file.write_text(plan.read_text()[:100])
    assert _fails(1, model, "--plan", file, "-o", out) == (
        f"{file} is damaged: delete it and run again"
    )
    file.write_text("{}")
    assert _fails(2, model, "--plan", file, "-o", out) == (
        f"{file} is not a removal plan: model is missing: add it (and 7 more)"
    )
    wider = _saved(tmp_path / "wider.keras", width=9)
    assert _fails(2, wider, "--plan", plan, "-o", out) == (
        f"{plan} was made for a model 'tiny' with 8 filters in layer 'first', and 'tiny' has 9: "
        "give the model it was made for"
    )
    assert not out.exists()


@pytest.mark.slow
def test_a_measured_target_says_what_was_measured(model: Path, tmp_path: Path) -> None:
    result = _run("slim", model, "--bytes", "100000", "-o", tmp_path / "s.keras")
    assert result.exit_code == 0, result.output
    assert re.match(r"measured as tflite, 1 threads: [\d,]+ bytes to [\d,]+$", result.stderr)
    before, after = result.stderr.split(": ")[1].replace(" bytes", "").split(" to ")
    # The file is that small already: nothing has to go.
    assert before == after.strip()
    assert _filters(tmp_path / "s.keras") == _filters(model)


@pytest.mark.slow
def test_a_measured_target_out_of_reach_is_one_line(model: Path) -> None:
    said = _fails(2, model, "--bytes", "100", "--plan-only")
    assert said.startswith("bytes=100 cannot be reached")


@pytest.mark.slow
@pytest.mark.skipif(not vela.installed(), reason="ethos-u-vela is not installed")
def test_a_target_of_a_device_says_what_was_estimated(model: Path, tmp_path: Path) -> None:
    there = ["--device", "ethos-u55-32", "--device-option", "memory_mode=Sram_Only"]
    result = _run("slim", model, "--cycles", "1", *there, "-o", tmp_path / "s.keras")
    assert result.exit_code == 0, result.output
    told, note = result.stderr.splitlines()
    assert re.match(r"ethos-u55-32, estimated: time [\d.]+ ms to [\d.]+ ms, cycles [\d,]+ to", told)
    assert "of weights and commands lie in SRAM besides" in note
    said = _fails(2, model, "--cycles", "1", "--plan-only")
    assert "cycles is what a device tells" in said


def test_a_missing_compiler_is_said_before_the_model_is_read(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(vela, "installed", lambda: False)
    broken = model.with_name("broken.keras")
    broken.write_text("no model")
    said = _fails(2, broken, "--sram", "0.5", "--device", "ethos-u55-32", "--plan-only")
    assert said == "device ethos-u55-32 needs Vela: pip install 'tfprune[ethos-u]'"
