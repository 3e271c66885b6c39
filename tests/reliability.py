"""The table of `docs/reliability.md`: inputs of each kind, and what becomes of them.

A test that tries an input nobody planned for bears the mark `reliability(kind, outcome)`. It passes
only where that outcome comes, so the table is made of the marks alone:

- right: the answer is right;
- refused: one line says what is wrong and what to do, before any work;
- warned: the work is done, and a warning gives the true figure or names what was left out.

`make reliability` writes the table again; a test fails where it is not what the marks say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
OUTCOMES = ("right", "refused", "warned")
# All tests of a session, those that it leaves out among them.
COLLECTED = pytest.StashKey[list[pytest.Item]]()
_BEGIN, _END = "<!-- table: made by `make reliability` -->", "<!-- end of the table -->"


def table(items: Iterable[pytest.Item]) -> str:
    """The table's lines, from the marks of all tests."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        for mark in item.iter_markers("reliability"):
            kind, outcome = mark.args
            if outcome not in OUTCOMES:
                raise ValueError(f"{item.nodeid}: the outcome is one of {OUTCOMES}")
            counts.setdefault(kind, Counter())[outcome] += 1
            counts[kind][f"in {item.path.relative_to(ROOT).as_posix()}"] += 1
    lines = [
        "| inputs | tried | right | refused | warned | lost | wrong | made by |",
        "|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for kind in sorted(counts):
        found = counts[kind]
        numbers = [found[outcome] for outcome in OUTCOMES]
        files = sorted(key.removeprefix("in ") for key in found if key.startswith("in "))
        cells = [kind, sum(numbers), *numbers, 0, 0, ", ".join(f"`{name}`" for name in files)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def written(lines: str) -> str:
    """The document with another table."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{lines}\n\n{_END}{after}"


def is_whole(items: Iterable[pytest.Item]) -> bool:
    """Whether tests of every module are among the collected ones."""
    modules = set((ROOT / "tests").rglob("test_*.py"))
    return modules <= {item.path for item in items}
