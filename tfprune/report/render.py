"""Tables as text: for people, spreadsheets, programs and READMEs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfprune.report import escaping

_SHOWN: dict[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy": ("accuracy", lambda value: f"{value:.2%}"),
    "loss": ("loss", lambda value: f"{value:.3f}"),
    "parameters": ("params", lambda value: f"{value:,.0f}"),
    "nonzero": ("non-zero", lambda value: f"{value:,.0f}"),
    "sparsity": ("sparsity", lambda value: f"{value:.1%}"),
    "macs": ("MACs", lambda value: f"{value / 1e6:.2f} M"),
    "macs_share": ("MACs", lambda value: f"{value:.1%}"),
    "params_share": ("params", lambda value: f"{value:.1%}"),
    "bytes": ("size", lambda value: _kib(value)),
    "bytes_gzip": ("gzip", lambda value: _kib(value)),
    "latency_ms": ("latency", lambda value: f"{value:.3f} ms"),
    "epochs": ("epochs", lambda value: f"{value:.0f}"),
    "epoch_seconds": ("s/epoch", lambda value: f"{value:.1f}"),
    "test_seconds": ("test s", lambda value: f"{value:.2f}"),
}

_TEXT = {"run", "variant", "artifact", "layer", "weight", "layers", "task", "state", "method"}


def _kib(value: float) -> str:
    return f"{value / 1024:,.1f} KiB"


def measured(column: str, value: float, deviation: float | None = None) -> str:
    """One figure as people read it.

    Args:
        column: which column of `comparison` it belongs to.
        value: the figure; NaN gives the empty text.
        deviation: written behind it, where it is given, not NaN, and not rounded to nothing;
            behind an accuracy always, for there no deviation is a finding.

    Returns:
        Text such as "12.3 KiB", "12.3 ± 0.4 KiB" or "92.00% ± 2.00%".
    """
    if math.isnan(value):
        return ""
    text = _SHOWN[column][1] if column in _SHOWN else "{:g}".format
    if deviation is None or math.isnan(deviation):
        return text(value)
    spread = text(deviation)
    if spread == text(0.0) and column != "accuracy":
        return text(value)
    number, _, unit = text(value).partition(" ")
    return f"{number} ± {spread}" if unit else f"{text(value)} ± {spread}"


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """A table's columns under short names, its numbers as text with their units."""
    shown = table.copy().astype(object)
    for column in shown.columns.intersection(list(_SHOWN)):
        _, text = _SHOWN[str(column)]
        shown[column] = [
            "" if pd.isna(value) else value if isinstance(value, str) else text(value)
            for value in shown[column]
        ]
    return shown.rename(columns={column: title for column, (title, _) in _SHOWN.items()})


def _terminal(table: pd.DataFrame) -> str:
    shown = for_people(table)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown.columns:
        numeric = column not in _TEXT
        grid.add_column(
            Text(escaping.one_line(str(column))),
            justify="right" if numeric else "left",
            no_wrap=True,
        )
    for row in shown.itertuples(index=False):
        # Text, not str: brackets in a name are not rich's markup.
        grid.add_row(*(Text(escaping.one_line(str(value))) for value in row))
    # A table that is wider than the terminal is better scrolled than folded.
    console = Console(file=io.StringIO(), width=1000, no_color=True)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    shown = for_people(table)
    align = ["left" if column in _TEXT else "right" for column in shown.columns]
    shown = shown.rename(columns=lambda name: escaping.markdown(str(name)))
    shown = shown.map(lambda value: escaping.markdown(value) if isinstance(value, str) else value)
    return shown.to_markdown(index=False, colalign=align, disable_numparse=True) + "\n"


def _csv(table: pd.DataFrame) -> str:
    safe = table.rename(columns=lambda name: escaping.csv_cell(str(name)))
    safe = safe.map(lambda value: escaping.csv_cell(value) if isinstance(value, str) else value)
    return safe.to_csv(index=False)


def _json(table: pd.DataFrame) -> str:
    return json.dumps(json.loads(table.to_json(orient="records")), indent=2) + "\n"


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "table": _terminal,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}


def render(table: pd.DataFrame, form: str = "table") -> str:
    """A table as text.

    Args:
        table: what to show.
        form: a name in `FORMATS`. `table` and `markdown` round and add units; `csv` and `json`
            keep every digit.

    Returns:
        The text, with a newline at its end.
    """
    return FORMATS[form](table)
