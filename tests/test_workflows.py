"""The workflows are valid, ask for little, and call commands that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tfprune.cli import main
from tfprune.report import load_budget

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / ".github" / "workflows" / "prune-and-check.yml"
BUDGET = ROOT / ".github" / "digits.budget.toml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# The commands of tfprune that each workflow calls, where it does not run and check a pipeline.
CALLED: dict[str, list[str]] = {"docs.yml": []}


def _workflow(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def _steps(workflow: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def _commands(script: str) -> Iterator[list[str]]:
    """The words of every call of tfprune in a shell script."""
    plain = re.sub(r"\$\{\{.*?\}\}", "VALUE", script).replace("\\\n", " ")
    for line in plain.splitlines():
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "tfprune":
            yield words[1:]


def _accepted(words: list[str]) -> None:
    """Parses a command line as `tfprune` would, and does not run it."""
    with main.make_context("tfprune", list(words)) as context:
        assert isinstance(main, click.Group)
        name, command, rest = main.resolve_command(context, list(words))
        assert command is not None
        command.make_context(name, rest, parent=context).close()


def test_there_are_three():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "docs.yml", "prune-and-check.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
class TestEvery:
    def test_asks_for_no_more_than_it_needs(self, path):
        workflow = _workflow(path)
        assert workflow["permissions"]["contents"] == "read"
        assert set(workflow["permissions"].values()) == {"read"}
        assert workflow["concurrency"]["group"].endswith("${{ github.ref }}")
        for job in workflow["jobs"].values():
            assert 0 < job["timeout-minutes"] <= 60
            assert job["runs-on"] == "ubuntu-24.04"
        # Who builds may not publish, and who publishes runs nothing of ours.
        for job in workflow["jobs"].values():
            may = job.get("permissions", {})
            assert set(may) <= {"pages", "id-token"}
            assert not may or not any("run" in step for step in job["steps"])

    def test_pins_the_major_versions_of_actions(self, path):
        used = [step["uses"] for step in _steps(_workflow(path)) if "uses" in step]
        assert used
        for action in used:
            assert re.fullmatch(r"actions/[a-z/-]+@v\d+", action)

    def test_calls_only_what_the_command_line_accepts(self, path):
        commands = [
            words for step in _steps(_workflow(path)) for words in _commands(step.get("run", ""))
        ]
        assert [words[0] for words in commands] == CALLED.get(path.name, ["run", "check"])
        for words in commands:
            _accepted(words)

    def test_names_files_that_exist(self, path):
        for step in _steps(_workflow(path)):
            for words in _commands(step.get("run", "")):
                for word in words:
                    if word.endswith(".toml"):
                        assert (ROOT / word).is_file()
            if (step.get("run") or "").startswith(".ci/"):
                assert (ROOT / step["run"]).is_file()
            if (step.get("run") or "").startswith("make "):
                target = step["run"].split()[1]
                assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_the_parser_of_commands_notices_mistakes():
    (words,) = _commands("tfprune check RUN \\\n  --budgt x.toml --baseline ${{ a.b }} # why\nls")
    assert words == ["check", "RUN", "--budgt", "x.toml", "--baseline", "VALUE"]
    for wrong in (words, ["chek", "RUN"], ["check"]):
        with pytest.raises(click.UsageError):
            _accepted(wrong)
    _accepted(["check", "RUN", "--baseline", "VALUE"])


def test_ci_runs_on_the_oldest_python_and_on_a_newer_one():
    matrix = _workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert f"python_requires = >={matrix['python'][0]}" in (ROOT / "setup.cfg").read_text()
    assert len(matrix["python"]) == 2


def test_the_example_starts_by_hand_only_and_keeps_what_it_made():
    workflow = _workflow(EXAMPLE)
    # YAML 1.1 takes the word "on" for a truth value.
    assert workflow[True] == {"workflow_dispatch": None}
    used = [step.get("uses", "").partition("@")[0] for step in _steps(workflow)]
    for action in ("actions/cache/restore", "actions/cache/save", "actions/upload-artifact"):
        assert action in used


def test_the_guide_shows_the_example_as_it_is_shipped():
    section = (ROOT / "docs" / "ci.md").read_text()
    snippets = dict(re.findall(r"```(toml|yaml)\n(.*?)```", section, re.DOTALL))
    assert snippets["toml"] == BUDGET.read_text()
    assert snippets["yaml"] in EXAMPLE.read_text()
    assert any(words[0] == "check" for words in _commands(snippets["yaml"].split("run: |")[1]))


def test_the_budget_of_the_example_is_valid():
    budget = load_budget(BUDGET)
    assert len(budget.rules) == 3
    assert any(rule.against for rule in budget.rules)
