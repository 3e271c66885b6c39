"""`tfprune lottery` runs a pipeline, prints its levels, and its controls are what they say."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tfprune.cli import main
from tfprune.weights import prunable

NET = ["conv2", "--option", "width=2", "--data", "digits", "--limit", "64"]
TRAIN = ["--epochs", "1", "--batch-size", "32", "--optimizer", "adam", "--learning-rate", "0.01"]
ARGUMENTS = ["lottery", *NET, *TRAIN, "--share", "0.5", "--scope", "global"]


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lottery")


@pytest.fixture(scope="module")
def first(out) -> Result:
    """One level with its controls."""
    result = _run(*ARGUMENTS, "--rounds", 1, "--controls", "-o", out)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def second(out, first) -> Result:
    """Two levels without them, in the same place."""
    result = _run(*ARGUMENTS, "--rounds", 2, "-o", out)
    assert result.exit_code == 0, result.output
    return result


def _masks(out: Path, variant: str) -> list[np.ndarray]:
    path = out / "lottery-conv2" / variant / "seed-0" / "model.keras"
    model = keras.saving.load_model(path, compile=False)
    return [np.asarray(variable) != 0 for _, variable in prunable(model)]


@pytest.mark.slow
def test_it_prints_the_levels_beside_the_dense_net(first, out):
    lines = first.stdout.splitlines()
    assert lines[0].split()[:4] == ["method", "level", "density", "accuracy"]
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["dense", "0", "100.0%"],
        ["ticket", "1", "50.0%"],
        ["reinit", "1", "50.0%"],
        ["random", "1", "50.0%"],
    ]
    run = out / "lottery-conv2"
    assert lines[-2:] == [f"picture: {run / 'tickets.svg'}", f"report: {run / 'report.html'}"]
    assert (run / "tickets.svg").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_the_reinit_control_has_the_tickets_masks(out):
    for one, other in zip(_masks(out, "ticket-1"), _masks(out, "reinit-1"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_the_random_control_has_the_density_of_every_layer_and_other_masks(out):
    ticket, drawn = _masks(out, "ticket-1"), _masks(out, "random-1")
    assert [mask.sum() for mask in ticket] == [mask.sum() for mask in drawn]
    assert any((one != other).any() for one, other in zip(ticket, drawn, strict=True))
    # Under the global scope layers differ.
    assert len({round(float(mask.mean()), 3) for mask in ticket}) > 1


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_the_controls_begin_with_weights_of_their_own(out):
    values = []
    for variant in ("ticket-1", "reinit-1"):
        path = out / "lottery-conv2" / variant / "seed-0" / "model.keras"
        model = keras.saving.load_model(path, compile=False)
        values.append(np.concatenate([np.ravel(variable) for _, variable in prunable(model)]))
    alive = values[0] != 0
    assert abs(np.corrcoef(values[0][alive], values[1][alive])[0, 1]) < 0.5


@pytest.mark.slow
def test_more_rounds_go_on_from_those_that_are_done(second, out):
    assert "ticket-1, seed 0" not in second.stderr
    assert "ticket-2, seed 0" in second.stderr
    levels = [line.split()[:2] for line in second.stdout.splitlines()[1:4]]
    assert levels == [["dense", "0"], ["ticket", "1"], ["ticket", "2"]]
    for one, other in zip(_masks(out, "ticket-1"), _masks(out, "ticket-2"), strict=True):
        assert not np.any(other & ~one)


@pytest.mark.slow
@pytest.mark.usefixtures("second")
def test_as_json_it_is_the_table_and_nothing_is_done_again(out):
    result = _run(*ARGUMENTS, "--rounds", 2, "-o", out, "--json")
    rows = json.loads(result.stdout)
    assert [(row["method"], row["level"]) for row in rows] == [
        ("dense", 0),
        ("ticket", 1),
        ("ticket", 2),
    ]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--rewind", "weights"],
            "rewind is 'weights'; choose init, lr, finetune, or the epoch to rewind to",
        ),
        (
            ["--layer-share", "dense"],
            "Invalid value for '--layer-share': 'dense' is not of the form dense*=0.2",
        ),
        (
            ["--seeds", "a"],
            "Invalid value for '--seeds': 'a' is not a list of numbers such as 0,1,2",
        ),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, arguments, said):
    result = _run(*ARGUMENTS, *arguments, "-o", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: {said}"
    assert not list(tmp_path.iterdir())
