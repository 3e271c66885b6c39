"""`tfprune search` prints what it found, and its exit code says whether the budget is met."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tfprune.cli import main

NET = ["vgg", "--option", "width=4", "--option", "blocks=[1]", "--data", "digits", "--limit", "64"]
SMALL = [*NET, "--epochs", "1", "--recovery", "1", "--training", "batch_size=32", "--trials", "1"]
SMALL += ["--minimize", "macs", "--max-drop", "100"]


def _run(*arguments):
    return CliRunner().invoke(main, ["search", *map(str, arguments)])


@pytest.mark.slow
def test_it_prints_the_front_the_test_and_the_files_or_one_document(tmp_path):
    result = _run(*SMALL, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    for said in ("validation, accuracy against MACs:", "test, the dense model", "winner.toml"):
        assert said in result.stdout
    again = _run(*SMALL, "-o", tmp_path, "--json", "--max-ratio", "0.001")
    document = json.loads(again.stdout)
    assert (again.exit_code, document["is_met"]) == (1, False)
    assert "the budget is not met" in again.stderr
    assert document["tried"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vgg"], "give --data"),
        (["vgg", "--data", "digits"], "epochs is missing"),
        (["vgg", "--data", "digits", "--epochs", 1, "--minimize", "cycle"], "is not a cost"),
        (["vgg", "--data", "digits", "--epochs", 1, "--device", "cpus"], "did you mean 'cpu'"),
        (["vgg", "--data", "digits", "--device-option", "threads=2"], "give --device"),
        (["none.toml"], "cannot be read"),
        (["none.toml", "--option", "width=4"], "model.options"),
        (["none.toml", "--limit", 4], "data.limit"),
        ([*SMALL, "--executor", "processes", "--address", "auto"], "address is for a Ray"),
        ([*SMALL, "--training", "epoch=3"], "training.epoch"),
        ([*SMALL, "--store", "nowhere://runs"], "Protocol not known: nowhere"),
    ],
)
def test_a_wrong_call_is_one_line_and_trains_nothing(arguments, said, tmp_path):
    result = _run(*arguments, "-o", tmp_path)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert not list(tmp_path.iterdir())
