"""Levels of a run that prunes in rounds: lottery tickets, their controls, the dense network.

Their table, the table over seeds, and the plots of the page and of `tickets.svg`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfprune import figures
from tfprune.figures import ACCURACY, Figure
from tfprune.report.html.svg import (
    SERIES,
    canvas,
    colour,
    inline,
    panel,
    round_numbers,
    short_name,
    style,
)
from tfprune.report.html.tradeoff import HEIGHT, MARKERS, WIDTH, legend_key, scale_figure
from tfprune.report.run import Delivery, Run
from tfprune.report.tables import layer_sparsity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TO = "\N{EN DASH}"
# Of the file of plots: between them, around them, and a line of the legend, in points.
_GAP, _EDGE, _LINE = 24, 12, 20


def _figures(by: Figure) -> tuple[Figure, ...]:
    """The figures of a level: that of the task, and those of its training."""
    return (by, *figures.learned(by))


def tickets(run: Run) -> pd.DataFrame:
    """The levels of a run that prunes in rounds.

    Example:
        >>> tickets(read_run(Path("saved_models/lottery")))[["method", "level", "accuracy"]]

    Args:
        run: what `read_run` read.

    Returns:
        One row a variant that prunes at once, or that such a variant begins with, and a seed, by
        method, then level. Columns are method (the variant's name without its level), level (how
        often it was pruned; 0 is dense), seed, artifact (the format that is measured), density
        (share of the delivered model's prunable weights that are not zero), the figure of the
        run's task, such as accuracy (of the artifact on the test set), early_stop_epoch (the epoch
        of the last training with the lowest validation loss, as Frankle & Carbin 2019 measure speed
        of learning; it was not stopped there), early_stop_val_accuracy (after that epoch) and
        val_accuracy (of the weights that the training left: at its end, or after the best epoch of
        an early stopping), with the figure's own name in them. NaN where it was not recorded. No
        rows where nothing prunes at once.
    """
    # What an earlier version of the pipeline left belongs to another lottery.
    known = run.record["pipeline"]["variants"]
    deliveries = [delivery for delivery in run.deliveries if delivery.variant in known]
    starts = {
        tuple(delivery.record["steps"][: _first(delivery)])
        for delivery in deliveries
        if _level(delivery)
    }
    chosen = [
        delivery
        for delivery in deliveries
        if _level(delivery)
        or any(start[: len(delivery.steps)] == tuple(delivery.record["steps"]) for start in starts)
    ]
    by = run.figure
    names = [row.name for row in _figures(by)]
    columns = ["method", "level", "seed", "artifact", "density", *names]
    if not starts:
        return pd.DataFrame(columns=columns)
    densities = _densities(layer_sparsity(run))
    rows = [
        {
            "method": _method_name(delivery.variant, _level(delivery)),
            "level": _level(delivery),
            "seed": delivery.seed,
            **_measured(delivery, by),
            "density": densities[delivery.variant, delivery.seed],
            **_early_stop(delivery, by),
        }
        for delivery in chosen
    ]
    table = pd.DataFrame(rows, columns=columns)
    # A figure that no level has is still a column of numbers.
    table[names] = table[names].apply(pd.to_numeric)
    # Methods stay in the order of the pipeline.
    rank = {method: place for place, method in enumerate(table["method"].unique())}
    return table.sort_values(
        ["method", "level", "seed"],
        key=lambda column: column.map(rank) if column.name == "method" else column,
        ignore_index=True,
    )


def tickets_over_seeds(table: pd.DataFrame, by: Figure = ACCURACY) -> pd.DataFrame:
    """One row a method and level.

    Example:
        >>> over = tickets_over_seeds(tickets(run), run.figure)
        >>> print(render(tickets_with_units(over, run.figure)))

    Args:
        table: what `tickets` returned.
        by: what the run is compared by, such as `Run.figure`.

    Returns:
        Columns method, level, seeds (how many), density (their mean) and, for each of accuracy,
        early_stop_epoch, early_stop_val_accuracy and val_accuracy (or those of another `by`), its
        mean, and NAME_min and NAME_max, the lowest and the highest of the seeds; NaN where a seed
        lacks it.
    """
    groups = table.groupby(["method", "level"], sort=False)
    parts: dict[str, Any] = {"seeds": groups.size(), "density": groups["density"].mean()}
    for figure in (row.name for row in _figures(by)):
        # Of all seeds or not known: a seed with NaN is none to leave out.
        known = groups[figure].count() == groups.size()
        parts[figure] = groups[figure].mean().where(known)
        parts[f"{figure}_min"] = groups[figure].min().where(known)
        parts[f"{figure}_max"] = groups[figure].max().where(known)
    return pd.DataFrame(parts).reset_index()


def tickets_with_units(over: pd.DataFrame, by: Figure = ACCURACY) -> pd.DataFrame:
    """The table of `tickets_over_seeds` as text: a cell a figure, "mean (lowest to highest)".

    Example:
        >>> over = tickets_over_seeds(tickets(run), run.figure)
        >>> print(render(tickets_with_units(over, run.figure)))

    Args:
        over: what `tickets_over_seeds` returned.
        by: what the run is compared by, such as `Run.figure`.

    Returns:
        Text in the columns method, level, density, accuracy, early-stop epoch, "val. accuracy
        then" and "val. accuracy", or the titles of another `by`.
    """

    def cell(row: dict[Any, Any], figure: Figure) -> str:
        mean, low, high = (
            figure.text(row[column])
            for column in (figure.name, f"{figure.name}_min", f"{figure.name}_max")
        )
        return mean if low == high else f"{mean} ({low}{_TO}{high})"

    return pd.DataFrame(
        [
            {
                "method": str(row["method"]),
                "level": str(row["level"]),
                "density": f"{row['density']:.1%}",
                **{figure.title: cell(row, figure) for figure in _figures(by)},
            }
            for row in over.to_dict("records")
        ]
    )


def _prunes(delivery: Delivery) -> list[bool]:
    kinds = [step.record.get("specification", {}).get("kind") for step in delivery.steps]
    return [kind == "prune-once" for kind in kinds]


def _level(delivery: Delivery) -> int:
    return sum(_prunes(delivery))


def _first(delivery: Delivery) -> int:
    return _prunes(delivery).index(True)


def _method_name(variant: str, level: int) -> str:
    """A variant's name without its level: "ticket" of "ticket-3", also within a sweep."""
    return re.sub(rf"-{level}(?=-|$)", "", variant, count=1) if level else variant


def _measured(delivery: Delivery, by: Figure) -> dict[str, Any]:
    """The figure of the Keras artifact, which has the weights as they were trained."""
    artifacts = {artifact["format"]: artifact for artifact in delivery.record["artifacts"]}
    form = "keras" if "keras" in artifacts else next(iter(artifacts))
    return {"artifact": form, by.name: artifacts[form][by.record_key]}


def _densities(layers: pd.DataFrame) -> dict[Any, float]:
    names = layers["weight"]
    kernels = layers[names.str.contains("kernel") | (names == "embeddings")]
    sums = kernels.groupby(["variant", "seed"])[["size", "zeros"]].sum()
    return (1 - sums["zeros"] / sums["size"]).to_dict()


def _early_stop(delivery: Delivery, by: Figure) -> dict[str, float]:
    """The figures of the last training, from its history."""
    trained = next((step for step in reversed(delivery.steps) if step.record.get("history")), None)
    history: dict[str, Any] = {} if trained is None else trained.record["history"]
    losses = np.asarray(history.get("val_loss", []), float)
    values = np.asarray(history.get(f"val_{by.name}", []), float)
    epoch, then, last = (row.name for row in figures.learned(by))
    learned = dict.fromkeys((epoch, then, last), float("nan"))
    if trained is not None and len(values):
        learned[last] = float(values[trained.left_row])
    if np.isfinite(losses).any():
        best = int(np.nanargmin(losses))
        epochs = history.get("epoch", range(1, len(losses) + 1))
        learned[epoch] = float(epochs[best])
        if len(values) == len(losses):
            learned[then] = float(values[best])
    return learned


@dataclass(frozen=True)
class LevelPlot:
    """A figure plotted against density, as an SVG element."""

    figure: Figure
    svg: str

    @property
    def caption(self) -> str:
        """What the plotted figure means, as a sentence."""
        return f"{self.figure.meaning[0].upper()}{self.figure.meaning[1:]}."


def legend(over: pd.DataFrame) -> list[tuple[str, str, str]]:
    """How each method is shown: its name, an SVG path within 14 by 14, its colour's role.

    Args:
        over: what `tickets_over_seeds` returned.
    """
    methods = over.loc[over["level"] > 0, "method"].unique()
    return [(str(method), *legend_key(place)[:2]) for place, method in enumerate(methods)]


def level_plots(over: pd.DataFrame, by: Figure = ACCURACY) -> list[LevelPlot]:
    """Plots the compared figure and the early-stop epoch against density, where any level has them.

    Args:
        over: what `tickets_over_seeds` returned.
        by: what the run is compared by.

    Returns:
        The plots. A line is a mean over seeds, its band reaches from the lowest to the highest,
        and the dense network is a dashed line.
    """
    return [
        LevelPlot(figure, _plot(rows, figure))
        for figure in (by, figures.figure("early_stop_epoch"))
        if len(rows := over[_drawable(over, figure) & (over["density"] > 0)])
    ]


def _drawable(over: pd.DataFrame, figure: Figure) -> pd.Series:
    """Which rows have a mean, and a range, that is a number."""
    ends = [figure.name, f"{figure.name}_min", f"{figure.name}_max"]
    return over[ends].apply(np.isfinite).all(axis=1)


def _plot(over: pd.DataFrame, figure: Figure) -> str:
    salt = f"tickets-{figure.name.replace('_', '-')}"
    with style(salt):
        sheet = canvas(WIDTH, HEIGHT)
        axes = panel(sheet, 46, 40, 12, 30)
        _set_scales(axes, over, figure)
        notes = _draw_dense(axes, over[over["level"] == 0], figure)
        for place, (method, _, role) in enumerate(legend(over)):
            rows = over[(over["method"] == method) & (over["level"] > 0)]
            notes |= _draw_method(axes, rows, figure, place, role)
        axes.text(
            0, 1.05, figure.axis_title, transform=axes.transAxes, color=colour("muted"), va="bottom"
        )
        axes.set_xlabel("density", color=colour("muted"), loc="right")
        return inline(sheet, salt=salt, title=_title(over, figure), notes=notes)


def _set_scales(axes: Axes, over: pd.DataFrame, figure: Figure) -> None:
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
    low = float(over[f"{figure.name}_min"].min())
    high = float(over[f"{figure.name}_max"].max())
    if figure.source == "history":
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        axes.set_ylim(0, high * 1.15)
    else:
        scale_figure(axes, figure, low, high)
    axes.grid(axis="y")


def _draw_dense(axes: Axes, rows: pd.DataFrame, figure: Figure) -> dict[str, list[str]]:
    if not len(rows):
        return {}
    for row in rows.to_dict("records"):
        low, high = row[f"{figure.name}_min"], row[f"{figure.name}_max"]
        if high > low:
            axes.axhspan(low, high, color=colour("muted"), alpha=0.12, lw=0, zorder=1)
        axes.axhline(row[figure.name], color=colour("muted"), lw=1, ls=(0, (4, 2)), zorder=2)
    points = axes.scatter(
        rows["density"], rows[figure.name], s=22, marker="o", color=colour("muted"), zorder=3
    )
    points.set_gid("dense")
    return {"dense": _notes(rows, figure)}


def _draw_method(
    axes: Axes, rows: pd.DataFrame, figure: Figure, place: int, role: str
) -> dict[str, list[str]]:
    look: dict[str, Any] = {"color": colour(role)}
    x, y = rows["density"].to_numpy(float), rows[figure.name].to_numpy(float)
    low, high = (rows[f"{figure.name}_{end}"].to_numpy(float) for end in ("min", "max"))
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
        f"density {row['density']:.1%}, {figure.title} {figure.text(row[figure.name])}"
        for row in rows.to_dict("records")
    ]


def _title(over: pd.DataFrame, figure: Figure) -> str:
    """What the figure shows, for those who cannot see it: each method's two ends."""
    parts = []
    for method, rows in over.groupby("method", sort=False):
        ends = rows.to_dict("records")
        first, last = ends[0], ends[-1]
        range_text = f"{figure.text(first[figure.name])} at {first['density']:.1%}"
        if len(ends) > 1:
            range_text += f" to {figure.text(last[figure.name])} at {last['density']:.1%}"
        parts.append(f"{method} {range_text}")
    return f"{figure.sentence} against density. {'; '.join(parts)}."


def tickets_file(table: pd.DataFrame, by: Figure = ACCURACY) -> str:
    """The plots side by side as an SVG file of their own, light or dark as the reader's system is.

    Example:
        >>> Path("tickets.svg").write_text(tickets_file(tickets(run), run.figure))

    Args:
        table: what `tickets` returned; at least one row.
        by: what the run is compared by, such as `Run.figure`.

    Returns:
        A document, the same for the same table.
    """
    over = tickets_over_seeds(table, by)
    plots = level_plots(over, by)
    css = resources.files("tfprune.report.html").joinpath("templates/report.css").read_text("utf-8")
    # The page's colours come first in its style sheet.
    colours = css.partition("* {")[0]
    shown = [
        *((name, f'<path d="{path}" fill="var(--{role})"/>') for name, path, role in legend(over)),
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
            f'<text x="24" y="11">{_escaped(short_name(name, 60))}</text></g>'
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


def section(run: Run) -> dict[str, Any] | None:
    """What the page shows of levels; None for a run that does not prune in rounds."""
    table = tickets(run)
    if not len(table):
        return None
    over = tickets_over_seeds(table, run.figure)
    shown = tickets_with_units(over, run.figure)
    return {
        "legend": legend(over),
        "drawn": level_plots(over, run.figure),
        "seeds": int(over["seeds"].max()),
        "dense": bool((over["level"] == 0).any()),
        "columns": list(shown.columns[2:]),
        "methods": [
            (method, [(row[1], row[2:]) for row in rows.itertuples(index=False)])
            for method, rows in shown.groupby("method", sort=False)
        ],
    }
