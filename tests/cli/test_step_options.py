"""Options of commands derive from the tables of steps."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from tfprune.cli import inspect, lottery, slim, step_options, training, weights
from tfprune.errors import UsageError
from tfprune.pipeline.steps import KINDS
from tfprune.pipeline.steps.weights import PruneOnceStep

# The fields of a step that a command does not take: they name other steps of a chain.
OF_CHAINS = {"kind", "keep"}
COMMANDS = [
    ("train", training.train_command),
    ("prune", training.prune_command),
    ("cluster", training.cluster_command),
    ("learn", training.learn_command),
    ("quantize-aware", training.quantize_aware_command),
    ("slim", slim.slim_command),
    ("prune-once", weights.prune_once_command),
    ("quantize-weights", weights.quantize_weights_command),
    ("rewrite", weights.rewrite_command),
    ("equalize", weights.equalize_command),
    ("correct-biases", weights.correct_biases_command),
    ("prune-once", lottery.lottery_command),
]


@pytest.mark.parametrize(("kind", "command"), COMMANDS)
def test_a_command_takes_all_that_its_step_takes(kind, command):
    parameters = {parameter.name: parameter for parameter in command.params}
    for name, field in KINDS[kind].model_fields.items():
        if name in OF_CHAINS:
            continue
        assert name in parameters
        if field.description and name not in ("teacher", "augment", "device_options"):
            assert field.description[1:] in (parameters[name].help or "")


@pytest.mark.parametrize(("kind", "command"), COMMANDS)
def test_the_defaults_of_a_command_are_those_of_its_step(kind, command):
    for parameter in command.params:
        field = KINDS[kind].model_fields.get(str(parameter.name))
        own = parameter.name in ("teacher", "epochs", "learning_rate", "sparsity", "share")
        if field is None or own or parameter.multiple:
            continue
        assert parameter.get_default(click.Context(command)) == field.default, parameter.name


def _values(table: Any, *words: str, **defaults: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command()
    @step_options.from_table(table, leave_out=("device_options",), **defaults)
    def command(**given: Any) -> None:
        found.update(given)

    result = CliRunner().invoke(command, list(words))
    if result.exit_code:
        raise UsageError(result.output)
    return found


def test_each_type_of_field_has_its_option():
    words = ["--share", "0.3", "--layers", "a=0.1", "--layers", "b*=0.2", "--layers", "a=0.5"]
    words += ["--exclude", "x", "--exclude", "y", "--scope", "global", "--min-kept", "2"]
    found = _values(PruneOnceStep, *words)
    assert found["layers"] == {"a": 0.1, "b*": 0.2}
    assert found["exclude"] == ("x", "y")
    assert (found["scope"], found["min_kept"], found["pattern"]) == ("global", 2, None)
    found = _values(KINDS["slim"], "--dead", "--augment", "flip", "--augment", "crop")
    assert (found["dead"], found["augment"]) == (True, ("flip", "crop"))
    assert _values(KINDS["train"], "--no-nesterov", epochs=1)["nesterov"] is False
    assert _values(KINDS["train"], epochs=3)["epochs"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "0"], "0 is not a number above 0 and below 1"),
        (["--share", "nan"], "nan is not a number above 0 and below 1"),
        (["--min-kept", "0"], "0 is not in the range"),
        (["--scope", "both"], "'both' is not one of 'layer', 'global'"),
        (["--layers", "a"], "'a' is not of the form dense*=0.2"),
        (["--layers", "a=1"], "1 is not a number at least 0 and below 1"),
    ],
)
def test_a_value_out_of_range_is_refused(words, message):
    with pytest.raises(UsageError, match="Invalid value for '--") as caught:
        _values(PruneOnceStep, *words)
    assert message in " ".join(str(caught.value).split())


def test_what_only_the_table_knows_is_told_with_the_command_or_the_option():
    with pytest.raises(UsageError, match=r"^tfprune prune-once: layers have shares of their own"):
        step_options.read_step("prune-once", {"share": 0.1, "scope": "global", "layers": {"a": 0}})
    with pytest.raises(UsageError, match=r"^--pattern 4:2: '4:2' is not a pattern: write N:M"):
        step_options.read_step("prune-once", {"share": 0.1, "pattern": "4:2"})


def test_inspect_takes_the_importances_of_slim():
    (own,) = (each for each in inspect.inspect_command.params if each.name == "importance")
    (other,) = (each for each in slim.slim_command.params if each.name == "importance")
    assert own.type.choices == other.type.choices  # type: ignore[attr-defined]
