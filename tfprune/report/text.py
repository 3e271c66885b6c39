"""Tables as text, and the names of others made harmless in each kind of text.

A table becomes text for people, for spreadsheets, for programs and for READMEs. Names of layers,
variants and files come from elsewhere; a terminal, Markdown or a spreadsheet could read more into
them than a name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfprune.figures import ACCURACY, Figure, by_name
from tfprune.files import strict_json

# What Markdown and the HTML in it give a meaning.
_MARKDOWN = re.compile(r"([\\|*_<>&~`\[\]])")
# GitHub's Markdown, whose tables reports use, takes an underscore within a word as it is.
_WITHIN_A_WORD = re.compile(r"(?<=[A-Za-z0-9])\\_(?=[A-Za-z0-9])")
# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@")
# Columns of names; all others hold numbers, and stand at the right.
_NAMES = {
    "run",
    "variant",
    "artifact",
    "layer",
    "weight",
    "layers",
    "task",
    "state",
    "method",
    "device",
    "figure",
}


def printable(text: str) -> str:
    """Text without line breaks and without what a terminal takes for a command."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def escape_markdown(text: str, *, everywhere: bool = False) -> str:
    r"""Text that GitHub's Markdown shows as it is, on one line.

    Example:
        >>> escape_markdown("a*b_c")
        'a\\*b_c'

    Args:
        text: from any origin.
        everywhere: whether older dialects must show it too, such as those of chats.
    """
    escaped = _MARKDOWN.sub(r"\\\1", printable(text))
    return escaped if everywhere else _WITHIN_A_WORD.sub("_", escaped)


def code_span(text: str) -> str:
    """Text as a span of code in Markdown, whatever backticks it has."""
    text = printable(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    # A space keeps a backtick at an end apart from the fence, and Markdown takes it away again.
    space = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{space}{text}{space}{fence}"


def spreadsheet_cell(text: str) -> str:
    """Text that a spreadsheet shows instead of computing it, on one line."""
    # A line break would begin another cell, which may begin with a formula.
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def with_units(table: pd.DataFrame, by: Figure = ACCURACY) -> pd.DataFrame:
    """A table with the headings of its figures, its numbers as text with their units.

    Args:
        table: any columns.
        by: what its rows are compared by.
    """
    shown, rows = table.copy().astype(object), by_name(by)
    for column in shown.columns.intersection(list(rows)):
        shown[column] = [
            "" if pd.isna(value) else value if isinstance(value, str) else rows[column].text(value)
            for value in shown[column]
        ]
    return shown.rename(columns={name: row.column_heading for name, row in rows.items()})


def _terminal(shown: pd.DataFrame) -> str:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown.columns:
        grid.add_column(
            Text(printable(str(column))),
            justify="left" if column in _NAMES else "right",
            no_wrap=True,
        )
    for row in shown.itertuples(index=False):
        # Text, not str: brackets in a name are not rich's markup.
        grid.add_row(*(Text(printable(str(value))) for value in row))
    # A table that is wider than the terminal is better scrolled than folded.
    console = Console(file=io.StringIO(), width=1000, no_color=True)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _markdown(shown: pd.DataFrame) -> str:
    align = ["left" if column in _NAMES else "right" for column in shown.columns]
    shown = shown.rename(columns=lambda name: escape_markdown(str(name)))
    shown = shown.map(lambda value: escape_markdown(value) if isinstance(value, str) else value)
    return shown.to_markdown(index=False, colalign=align, disable_numparse=True) + "\n"


def _csv(table: pd.DataFrame) -> str:
    safe = table.rename(columns=lambda name: spreadsheet_cell(str(name)))
    safe = safe.map(lambda value: spreadsheet_cell(value) if isinstance(value, str) else value)
    return safe.to_csv(index=False)


def _json(table: pd.DataFrame) -> str:
    # Not `to_json`, which keeps ten digits.
    whole = table.astype(object)
    return strict_json(whole.where(whole.notna(), None).to_dict("records")) + "\n"


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "table": _terminal,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}
# Those for people, who want headings and units.
_READ = ("table", "markdown")


def render(table: pd.DataFrame, form: str = "table", by: Figure = ACCURACY) -> str:
    """A table as text.

    Example:
        >>> print(render(pd.DataFrame({"variant": ["dense"], "bytes": [2048]})), end="")
        variant     size
        dense    2.0 KiB

    Args:
        table: what to show.
        form: a name in `FORMATS`. `table` and `markdown` round and add units; `csv` and `json`
            keep every digit.
        by: what the rows of the table are compared by, such as `Run.figure`.

    Returns:
        The text, with a newline at its end.
    """
    return FORMATS[form](with_units(table, by) if form in _READ else table)
