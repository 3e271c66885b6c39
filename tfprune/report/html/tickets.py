"""Tickets and their controls, drawn: how well and how fast they learn at each density."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfprune.report.html.figure import (
    SERIES,
    canvas,
    colour,
    inline,
    label,
    panel,
    round_numbers,
    style,
)
from tfprune.report.html.plots import HEIGHT, MARKERS, WIDTH, key
from tfprune.report.render import measured
from tfprune.report.tickets import tickets_over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GAP, _EDGE, _LINE = 24, 12, 20


@dataclass(frozen=True)
class Figure:
    """One plot of levels.

    Attributes:
        column: what of `tickets` is plotted against density.
        title: what that is, in words.
        meaning: how to read it.
    """

    column: str
    title: str
    meaning: str


@dataclass(frozen=True)
class Drawn:
    """A plot and its SVG element."""

    figure: Figure
    svg: str


FIGURES = (
    Figure("accuracy", "accuracy", "Of the delivered artifact on the test images."),
    Figure(
        "early_stop_epoch",
        "early-stop epoch",
        "The epoch with the lowest validation loss in the last training: the sooner, the faster "
        "it learns.",
    ),
)


def looks(over: pd.DataFrame) -> list[tuple[str, str, str]]:
    """How each method is shown: its name, an SVG path within 14 by 14, its colour's role.

    Args:
        over: what `tickets_over_seeds` returned.
    """
    methods = over.loc[over["level"] > 0, "method"].unique()
    return [(str(method), *key(place)[:2]) for place, method in enumerate(methods)]


def drawn(over: pd.DataFrame) -> list[Drawn]:
    """Plots each of `FIGURES` against density, where any level has it.

    Args:
        over: what `tickets_over_seeds` returned.

    Returns:
        The plots. A line is a mean over seeds, its band reaches from the lowest to the highest,
        and what is dense is a dashed line.
    """
    return [
        Drawn(figure, _plot(rows, figure))
        for figure in FIGURES
        if len(rows := over[over[figure.column].notna() & (over["density"] > 0)])
    ]


def _plot(over: pd.DataFrame, figure: Figure) -> str:
    salt = f"tickets-{figure.column.replace('_', '-')}"
    with style(salt):
        sheet = canvas(WIDTH, HEIGHT)
        axes = panel(sheet, 46, 40, 12, 30)
        _scales(axes, over, figure)
        notes = _dense(axes, over[over["level"] == 0], figure)
        for place, (method, _, role) in enumerate(looks(over)):
            rows = over[(over["method"] == method) & (over["level"] > 0)]
            notes |= _method(axes, rows, figure, place, role)
        axes.text(
            0, 1.05, figure.title, transform=axes.transAxes, color=colour("muted"), va="bottom"
        )
        axes.set_xlabel("density", color=colour("muted"), loc="right")
        return inline(sheet, salt=salt, title=_title(over, figure), notes=notes)


def _scales(axes: Axes, over: pd.DataFrame, figure: Figure) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    least = min(float(over["density"].min()), 0.9)
    axes.set_xscale("log")
    # Dense at the left, as the papers have it.
    axes.set_xlim(1.12, least / 1.12)
    ticks = [tick / 100 for tick in round_numbers(100 * least / 1.12, 100)]
    tenths = [tick / 10 for tick in range(1, 11) if tick / 10 >= least / 1.12]
    axes.xaxis.set_major_locator(FixedLocator(ticks if len(ticks) > 3 else tenths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    low = float(over[f"{figure.column}_min"].min())
    high = float(over[f"{figure.column}_max"].max())
    axes.yaxis.set_major_locator(
        MaxNLocator(5, steps=[1, 2, 5, 10], integer=figure.column != "accuracy")
    )
    if figure.column == "accuracy":
        room = max((high - low) * 0.15, 0.004)
        axes.set_ylim(low - room, high + room)
        digits = 0 if high - low > 0.03 else 1
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.{digits}%}" if value <= 1 + 1e-9 else "")
        )
    else:
        axes.set_ylim(0, high * 1.15)
    axes.grid(axis="y")


def _dense(axes: Axes, rows: pd.DataFrame, figure: Figure) -> dict[str, list[str]]:
    if not len(rows):
        return {}
    for row in rows.to_dict("records"):
        low, high = row[f"{figure.column}_min"], row[f"{figure.column}_max"]
        if high > low:
            axes.axhspan(low, high, color=colour("muted"), alpha=0.12, lw=0, zorder=1)
        axes.axhline(row[figure.column], color=colour("muted"), lw=1, ls=(0, (4, 2)), zorder=2)
    points = axes.scatter(
        rows["density"], rows[figure.column], s=22, marker="o", color=colour("muted"), zorder=3
    )
    points.set_gid("dense")
    return {"dense": _notes(rows, figure)}


def _method(
    axes: Axes, rows: pd.DataFrame, figure: Figure, place: int, role: str
) -> dict[str, list[str]]:
    look: dict[str, Any] = {"color": colour(role)}
    x, y = rows["density"].to_numpy(float), rows[figure.column].to_numpy(float)
    low, high = (rows[f"{figure.column}_{end}"].to_numpy(float) for end in ("min", "max"))
    if np.any(high > low):
        axes.fill_between(x, low, high, **look, alpha=0.15, lw=0, zorder=2)
    axes.plot(x, y, **look, lw=1.4, zorder=3)
    points = axes.scatter(x, y, **look, s=26, marker=MARKERS[place % SERIES], zorder=4)
    gid = f"method-{place}"
    points.set_gid(gid)
    return {gid: _notes(rows, figure)}


def _notes(rows: pd.DataFrame, figure: Figure) -> list[str]:
    return [
        f"{row['method']}{', level ' + str(row['level']) if row['level'] else ''}: "
        f"density {row['density']:.1%}, {figure.title} {_said(row, figure)}"
        for row in rows.to_dict("records")
    ]


def _said(row: dict[Any, Any], figure: Figure) -> str:
    return measured(figure.column, row[figure.column])


def _title(over: pd.DataFrame, figure: Figure) -> str:
    """What the figure shows, for those who cannot see it: each method's two ends."""
    parts = []
    for method, rows in over.groupby("method", sort=False):
        ends = rows.to_dict("records")
        first, last = ends[0], ends[-1]
        said = f"{_said(first, figure)} at {first['density']:.1%}"
        if len(ends) > 1:
            said += f" to {_said(last, figure)} at {last['density']:.1%}"
        parts.append(f"{method} {said}")
    title = figure.title[0].upper() + figure.title[1:]
    return f"{title} against density. {'; '.join(parts)}."


def tickets_file(table: pd.DataFrame) -> str:
    """The plots side by side as an SVG file of their own, light or dark as the reader's system is.

    Args:
        table: what `tickets` returned; at least one row.

    Returns:
        A document, the same for the same table.
    """
    over = tickets_over_seeds(table)
    plots = drawn(over)
    css = resources.files("tfprune.report.html").joinpath("templates/report.css").read_text("utf-8")
    # The page's colours come first in its style sheet.
    colours = css.partition("* {")[0]
    shown = [
        *((name, f'<path d="{path}" fill="var(--{role})"/>') for name, path, role in looks(over)),
        ("dense", '<path d="M-2 7h18" stroke="var(--muted)" stroke-dasharray="4 2"/>'),
    ]
    top = _EDGE + _LINE * len(shown)
    width = len(plots) * (WIDTH + _GAP) - _GAP + 2 * _EDGE
    height = top + HEIGHT + 2 * _EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif">',
        "<title>Lottery tickets and their controls</title>",
        f"<style>{colours}text {{ fill: var(--ink); font-size: 12px; }}</style>",
        f'<rect width="{width}" height="{height}" fill="var(--page)"/>',
    ]
    for place, (name, mark) in enumerate(shown):
        y = _EDGE + _LINE * place
        parts.append(
            f'<g transform="translate({_EDGE + 2} {y})">{mark}'
            f'<text x="24" y="11">{_escaped(label(name, 60))}</text></g>'
        )
    for place, plot in enumerate(plots):
        x = _EDGE + place * (WIDTH + _GAP)
        frame = f'<svg x="{x}" y="{top + _EDGE}" width="{WIDTH}" height="{HEIGHT}" '
        # Its width is the place's; the page's own limit would be another.
        inner = re.sub(r' style="max-width:[^"]*"', "", plot.svg, count=1)
        parts.append(inner.replace("<svg ", frame, 1))
    return "\n".join([*parts, "</svg>", ""])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
