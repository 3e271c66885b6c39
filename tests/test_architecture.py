"""Imports run downward only, and algorithms know nothing of files, pipelines or click."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import tfprune

PACKAGE = Path(tfprune.__file__).parent
# From the bottom to the top; a part may import itself and what lies below its row.
LAYERS = [
    {"errors", "figures", "quiet", "vocabulary"},
    {"archives", "files", "functions", "validation"},
    {"zoo"},
    {"model"},
    {"data"},
    {"tasks"},
    {"training"},
    {"weights", "filters"},
    {"quantize"},
    {"formats"},
    {"measure"},
    {"artifacts"},
    {"devices"},
    {"slimming", "learning"},
    # Below `report`, which takes the words of a step from its kind.
    {"pipeline.steps"},
    {"report"},
    {"pipeline"},
    {"searching", "app"},
    {"cli"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
PUBLIC = {
    alias.name: node.module or ""
    for node in ast.parse(PACKAGE.joinpath("__init__.pyi").read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE) + sorted(
    path for path in PACKAGE.glob("*.py") if path.stem != "__init__"
)


def _part_of(names: Sequence[str]) -> str:
    """The part that a module belongs to: its package, but for a room with a level of its own."""
    inner = ".".join(names[:2])
    return inner if inner in LEVEL else names[0]


def _part(path: Path) -> str:
    return _part_of(path.relative_to(PACKAGE).with_suffix("").parts)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tfprune":
            names = [f"tfprune.{each.name}" for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward_only(path):
    mine = _part(path)
    for name in _imported(path):
        top, _, rest = name.partition(".")
        if top != "tfprune" or not rest:
            continue
        # A public name stands for the part that it lives in.
        part = _part_of(PUBLIC.get(rest, rest).split("."))
        if part in LEVEL:
            assert part == mine or LEVEL[part] < LEVEL[mine], f"{path} imports {name}"
        else:
            assert rest == "__version__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_knows_click_and_only_edges_know_tensorflow(path):
    imported = {name.partition(".")[0] for name in _imported(path)}
    assert "click" not in imported or _part(path) == "cli"
    # Keras' own distribution does not share batches with the TensorFlow backend.
    edge = _part(path) in ("data", "formats", "measure") or path.stem == "distribution"
    assert "tensorflow" not in imported or edge


def test_every_part_has_a_level():
    assert {_part(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_module_that_the_map_names_exists(document):
    root = PACKAGE.parent
    names = re.findall(r"`([\w./]+(?:\.py|/))`", root.joinpath(document).read_text())
    assert len(names) > 20
    for name in names:
        places = [root / name, PACKAGE / name, *PACKAGE.rglob(name.rstrip("/"))]
        assert any(place.exists() for place in places), f"{document} names {name}"


def test_the_map_has_every_part_in_its_place():
    text = PACKAGE.parent.joinpath("docs/architecture.md").read_text()
    drawn = " ".join(re.findall(r"^> (.*)$", text, re.M))
    rows = [{name.strip() for name in row.split(",")} for row in drawn.split("→")]
    levels = [{LEVEL[name] for name in row} for row in rows]
    assert {name for row in rows for name in row} == set(LEVEL)
    assert all(min(above) > max(below) for above, below in pairwise(levels))
