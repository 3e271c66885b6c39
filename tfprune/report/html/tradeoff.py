"""Trade-offs: the compared figure against its costs, one point for each variant and artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfprune import figures
from tfprune.figures import ACCURACY, Figure
from tfprune.report.html.svg import (
    SERIES,
    Box,
    canvas,
    colour,
    inline,
    panel,
    place_labels,
    round_numbers,
    short_name,
    style,
)
from tfprune.report.tables import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Shape tells formats apart where colour does not. Where formats lie on one another, as keras and
# tflite do, the first is the largest, so that each can be seen; the last two of six are not filled.
MARKERS = ("o", "s", "^", "D", "v", "p")
_AREAS = (58, 34, 24, 15, 20, 20)
WIDTH, HEIGHT = 360, 300
# Up to so many variants each has its name in the figure; beyond, those on the front and the first.
_ALL_NAMED = 8


# The same shapes for the key in the page, within a box of 14 by 14.
_SHAPES = {
    "o": "M7 2a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
    "s": "M2.5 2.5h9v9h-9z",
    "^": "M7 2L12.5 11.5H1.5z",
    "D": "M7 1.5L12.5 7L7 12.5L1.5 7z",
    "v": "M7 12L1.5 2.5H12.5z",
    "p": "M7 1.5L12.5 5.5L10.4 12H3.6L1.5 5.5z",
}
_FILLED = (2, 3)


def pareto_front(cost: npt.ArrayLike, value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The points that no other point beats.

    A point beats another where it costs no more, is worth no less, and is better in one of the two.

    Args:
        cost: shape (n,), less is better.
        value: shape (n,), more is better.

    Returns:
        Shape (n,), True for members of the front. Equal points are members together. A point whose
        cost or value is NaN is not on the front and dominates no other.
    """
    costs, values = np.asarray(cost, float), np.asarray(value, float)
    # Entry [i, j] compares point j with point i; a comparison with NaN is False.
    as_good = (costs <= costs[:, None]) & (values >= values[:, None])
    better = (costs < costs[:, None]) | (values > values[:, None])
    beaten = (as_good & better).any(axis=1)
    return ~beaten & ~np.isnan(costs) & ~np.isnan(values)


@dataclass(frozen=True)
class Tradeoff:
    """One plot.

    Attributes:
        cost: what the compared figure is plotted against.
        svg: the plot.
        front: its members as text, the cheapest first.
    """

    cost: Figure
    svg: str
    front: tuple[str, ...]


def formats(means: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The marker and the colour's role of every artifact format, in their order."""
    return {
        str(name): (MARKERS[place % len(MARKERS)], f"series-{place % SERIES + 1}")
        for place, name in enumerate(means["artifact"].unique())
    }


def legend_key(place: int) -> tuple[str, str, bool]:
    """How a series is shown in a legend: SVG path within 14 by 14, colour's role, filled."""
    rank = place % SERIES
    return _SHAPES[MARKERS[rank]], f"series-{rank + 1}", rank in _FILLED


def tradeoff(spread: Spread, cost: Figure, by: Figure = ACCURACY) -> Tradeoff | None:
    """Plots the compared figure against a cost.

    Args:
        spread: of one run.
        cost: against what.
        by: what the run is compared by.

    Returns:
        The plot, or None where no row has that cost.
    """
    # What is infinite has no place in a plot; the table has it.
    kept = (spread.means[cost.name].notna() & np.isfinite(spread.means[by.name])).to_numpy()
    if not kept.any():
        return None
    means, deviations = spread.means[kept], spread.deviations[kept]
    x, y = means[cost.name].to_numpy(float) / cost.number.per, means[by.name].to_numpy(float)
    spans = (
        deviations[cost.name].fillna(0).to_numpy(float) / cost.number.per,
        deviations[by.name].fillna(0).to_numpy(float),
    )
    front = pareto_front(x, by.gain(y))
    members = _members(means[front].sort_values(cost.name, kind="stable"), cost, by)
    salt = f"tradeoff-{cost.name.replace('_', '-')}"
    with style(salt):
        figure = canvas(WIDTH, HEIGHT)
        axes = panel(figure, 46, 40, 12, 30)
        _scales(axes, x, y, spans, by)
        order = np.lexsort((y[front], x[front]))
        axes.step(
            x[front][order], y[front][order], where="post", color=colour("muted"), lw=1, zorder=2
        )
        notes = _points(axes, means, formats(spread.means), x, y, spans, cost, by)
        _label_points(axes, means["variant"].astype(str).to_list(), x, y, front)
        axes.text(
            0, 1.05, by.axis_title, transform=axes.transAxes, color=colour("muted"), va="bottom"
        )
        axes.set_xlabel(f"{cost.noun}, {cost.axis_unit}", color=colour("muted"), loc="right")
        svg = inline(
            figure,
            salt=salt,
            title=f"{by.sentence} against {cost.noun} of {len(means)} artifacts. "
            f"Pareto front: {'; '.join(members[:12])}.",
            notes=notes,
        )
    return Tradeoff(cost, svg, members)


def _members(front: pd.DataFrame, cost: Figure, by: Figure) -> tuple[str, ...]:
    """Members of a front; artifacts of a variant whose figures read alike are one entry."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in front.to_dict("records"):
        text = f"{cost.text(row[cost.name])}, {by.text(row[by.name])}"
        alike.setdefault((str(row["variant"]), text), []).append(str(row["artifact"]))
    return tuple(
        f"{variant} as {', '.join(artifacts)} ({text})"
        for (variant, text), artifacts in alike.items()
    )


def scale_figure(axes: Axes, by: Figure, low: float, high: float) -> None:
    """Limits and ticks of the upright axis of a compared figure.

    Args:
        axes: of the plot.
        by: what is plotted.
        low: its lowest value.
        high: its highest.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    least = 0.004 if by.is_share else max(abs(low), abs(high)) * 0.02 or 0.004
    room = max((high - low) * 0.15, least)
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    digits = 0 if high - low > 0.03 else 1

    def tick(value: float, _: int) -> str:
        # The room beyond keeps names apart; no share lies there.
        beyond = by.is_share and not -1e-9 <= value <= 1 + 1e-9
        return "" if beyond else by.tick(value, digits)

    axes.yaxis.set_major_formatter(FuncFormatter(tick))


def _scales(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    spans: tuple[np.ndarray, np.ndarray],
    by: Figure,
) -> None:
    """Limits and ticks: costs from zero, or on a log scale where they span much."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    if x.min() > 0 and x.max() / x.min() > 8:
        axes.set_xscale("log")
        low, high = x.min() / 1.5, x.max() * 1.5
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator(round_numbers(low, high)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, (x + spans[0]).max() * 1.12 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    scale_figure(axes, by, float((y - spans[1]).min()), float((y + spans[1]).max()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(axis="y")


def _points(
    axes: Axes,
    means: pd.DataFrame,
    looks: Mapping[str, tuple[str, str]],
    x: np.ndarray,
    y: np.ndarray,
    spans: tuple[np.ndarray, np.ndarray],
    cost: Figure,
    by: Figure,
) -> dict[str, list[str]]:
    """Draws all points, format by format; what they are, by the gid of their format."""
    notes = {}
    # Many points hide one another less when they are small.
    size = 1.0 if len(x) <= 48 else 0.55
    for rank, (form, (marker, role)) in enumerate(looks.items()):
        here = (means["artifact"] == form).to_numpy()
        look: dict[str, Any] = {"color": colour(role), "lw": 0.8, "alpha": 0.5, "zorder": 2.5}
        (dx, dy), (px, py) = (span[here] for span in spans), (x[here], y[here])
        axes.hlines(py[dx > 0], (px - dx)[dx > 0], (px + dx)[dx > 0], **look)
        axes.vlines(px[dy > 0], (py - dy)[dy > 0], (py + dy)[dy > 0], **look)
        points = axes.scatter(
            x[here],
            y[here],
            s=_AREAS[rank % SERIES] * size,
            marker=marker,
            facecolors=colour(role) if rank % SERIES in _FILLED else "none",
            edgecolors=colour(role),
            linewidths=1.3,
            zorder=3 + rank / 10,
        )
        gid = f"points-{rank}"
        points.set_gid(gid)
        notes[gid] = [
            f"{row['variant']}, {form}: {by.text(row[by.name])}, {cost.text(row[cost.name])}"
            for row in means[here].to_dict("records")
        ]
    return notes


def _label_points(
    axes: Axes, variants: Sequence[str], x: np.ndarray, y: np.ndarray, front: np.ndarray
) -> None:
    """Writes variants' names where there is room, the front's before the others'."""
    pixels = axes.transData.transform(np.column_stack([x, y]))
    chosen: list[int] = []
    on_front = sorted(map(int, np.flatnonzero(front)), key=lambda place: x[place])
    others = [place for place in range(len(x)) if not front[place]]
    few = len(set(variants)) <= _ALL_NAMED
    for place in [*on_front, *others]:
        twins = [other for other in chosen if variants[other] == variants[place]]
        near = any(np.hypot(*(pixels[other] - pixels[place])) < 14 for other in twins)
        wanted = front[place] or few or variants[place] == variants[0]
        # One name serves points of a variant that lie together; off the front, all of them.
        if wanted and not (near if front[place] else twins):
            chosen.append(place)
    if not chosen:
        return
    canvas_size = axes.figure.get_window_extent()
    texts = [short_name(variants[place], 20) for place in chosen]
    # Measured in matplotlib's own font, which is wider than those of browsers.
    drawn = [axes.text(0, 0, text, fontsize=10) for text in texts]
    boxes = [name.get_window_extent() for name in drawn]
    for name in drawn:
        name.remove()
    frame = axes.get_window_extent()
    right = canvas_size.x1
    places = place_labels(
        [(float(px), float(py)) for px, py in pixels[chosen]],
        [(box.width, box.height) for box in boxes],
        Box(frame.x0 + 2, frame.y0 + 2, right - 1, frame.y1 + 4),
        taken=[Box(px - 4.5, py - 4.5, px + 4.5, py + 4.5) for px, py in pixels],
        disliked=_line(pixels[on_front]),
    )
    for place, text, box in zip(chosen, texts, places, strict=True):
        if box is None:
            continue
        px, py = pixels[place]
        middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
        nearest = (min(max(px, box.left), box.right), min(max(py, box.bottom), box.top))
        if math.dist((px, py), nearest) > 12:
            _line_to(axes, (px, py), nearest)
        at = axes.transData.inverted().transform(middle)
        axes.text(
            float(at[0]),
            float(at[1]),
            text,
            fontsize=10,
            ha="center",
            va="center_baseline",
            zorder=5,
        )


def _line_to(axes: Axes, begin: tuple[float, float], end: tuple[float, float]) -> None:
    ends = axes.transData.inverted().transform([begin, end])
    axes.plot(ends[:, 0], ends[:, 1], color=colour("muted"), lw=0.6, zorder=2)


def _line(corners: np.ndarray) -> list[Box]:
    """Small boxes along the steps of the front."""
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        boxes.append(Box(x0, y0 - 1, x1, y0 + 1))
        boxes.append(Box(x1 - 1, min(y0, y1), x1 + 1, max(y0, y1)))
    return boxes


def section(spread: Spread, by: Figure = ACCURACY) -> dict[str, Any]:
    """What the page shows of trade-offs: a plot for each of `COSTS`, and the legend of formats."""
    costs = [figures.figure(name) for name in figures.COSTS]
    plots = [plot for cost in costs if (plot := tradeoff(spread, cost, by))]
    drawn = {plot.cost.name for plot in plots}
    return {
        "legend": [(name, *legend_key(place)) for place, name in enumerate(formats(spread.means))],
        "drawn": plots,
        "missing": [cost.noun for cost in costs if cost.name not in drawn],
    }
