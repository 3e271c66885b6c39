"""Training curves: the histories of a variant's steps, joined end to end and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfprune.figures import ACCURACY, Figure
from tfprune.report.html.svg import (
    canvas,
    colour,
    inline,
    panel,
    round_numbers,
    short_name,
    style,
)
from tfprune.report.records import VALIDATION
from tfprune.report.run import Delivery

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, _LEFT, _RIGHT, _GAP, _NAMES = 360, 46, 12, 24, 30
# Heights of the panels, in points: of the compared figure, the loss and the zeros.
_FIGURE, _LOSS, _ZEROS = 120, 84, 44
# From this ratio of its ends on, a figure is drawn on a logarithmic scale.
_WIDE = 20.0


def metrics(by: Figure = ACCURACY) -> tuple[str, ...]:
    """The columns of a history: what is compared, the loss, and the share of zeros."""
    return tuple(dict.fromkeys((by.name, f"val_{by.name}", "loss", "val_loss", "sparsity")))


@dataclass(frozen=True)
class Stretch:
    """Where a step lies in its chain, in epochs from the chain's begin."""

    step: str
    begin: int
    epochs: int


@dataclass(frozen=True)
class Chain:
    """One variant's training.

    Attributes:
        variant: its name.
        stretches: the steps in order; one that does not train has no epochs.
        histories: a frame a seed: `at` (epochs from the chain's begin) and `metrics`, NaN where a
            step did not record one.
        removals: `at` and the figure on validation data right after channels were removed, a row
            each.
        left: `at` of the epoch whose weights the last training left, a seed each; the last one
            without early stopping, 0 without a training.
        by: what it is compared by.
    """

    variant: str
    stretches: tuple[Stretch, ...]
    histories: tuple[pd.DataFrame, ...]
    removals: tuple[tuple[int, float], ...]
    left: tuple[int, ...]
    by: Figure = ACCURACY

    @property
    def epochs(self) -> int:
        """Of all steps together."""
        return sum(stretch.epochs for stretch in self.stretches)


def chain(deliveries: Sequence[Delivery], by: Figure = ACCURACY) -> Chain:
    """Joins the histories of a variant's steps.

    Args:
        deliveries: one variant, a delivery a seed.
        by: what it is compared by.
    """
    stretches: list[Stretch] = []
    parts: list[list[pd.DataFrame]] = [[] for _ in deliveries]
    removals: list[tuple[int, float]] = []
    left = [0] * len(deliveries)
    begin = 0
    # A step begins where the longest of all seeds' steps before it ends.
    for steps in zip_longest(*(delivery.steps for delivery in deliveries)):
        longest = 0
        there = [(seed, step) for seed, step in enumerate(steps) if step is not None]
        for seed, step in there:
            frame = _history(step.record.get("history") or {}, metrics(by))
            longest = max(longest, len(frame))
            frame.insert(0, "at", np.arange(begin + 1, begin + 1 + len(frame)))
            parts[seed].append(frame)
            if len(frame):
                left[seed] = int(frame["at"].iloc[step.left_row])
            after = (step.record.get(VALIDATION + by.name) or {}).get("removed")
            if after is not None and math.isfinite(after):
                removals.append((begin, float(after)))
        stretches.append(Stretch(str(there[0][1].record["step"]), begin, longest))
        begin += longest
    return Chain(
        deliveries[0].variant,
        tuple(stretches),
        tuple(_joined(frames, metrics(by)) for frames in parts),
        tuple(removals),
        tuple(left),
        by,
    )


def _history(history: dict[str, list[float]], names: Sequence[str]) -> pd.DataFrame:
    length = max((len(history[metric]) for metric in names if metric in history), default=0)
    missing = [float("nan")] * length
    return pd.DataFrame({metric: history.get(metric, missing) for metric in names}, dtype=float)


def _joined(frames: list[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    # Empty frames would change the types of joined ones.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=["at", *names], dtype=float)
    return pd.DataFrame(
        {
            column: np.concatenate([frame[column].to_numpy(float) for frame in filled])
            for column in ("at", *names)
        }
    )


@dataclass(frozen=True)
class SharedAxes:
    """The axes that the plots of several chains share, so that they can be compared.

    Attributes:
        figure: limits of the compared figure.
        logarithmic: whether it is drawn on a logarithmic scale, as the loss is.
        loss: limits of the loss.
        sparsity: whether any chain recorded zeros.
    """

    figure: tuple[float, float]
    logarithmic: bool
    loss: tuple[float, float]
    sparsity: bool


def shared_axes(chains: Sequence[Chain]) -> SharedAxes:
    """Limits within which all chains can be drawn.

    Args:
        chains: at least one.
    """
    every = pd.concat([history for chain in chains for history in chain.histories])
    by = chains[0].by
    drops = [after for chain in chains for _, after in chain.removals]
    values = np.concatenate([_finite(every, by.name), np.array(drops, float)])
    loss = _finite(every, "loss")
    positive = len(values) > 0 and values.min() > 0
    logarithmic = not by.is_share and bool(
        by.name == "loss" or (positive and values.max() > _WIDE * values.min())
    )
    return SharedAxes(
        _logarithmic(values) if logarithmic else _limits(by, values),
        logarithmic,
        _logarithmic(loss),
        bool(every["sparsity"].notna().any()),
    )


def _limits(by: Figure, values: np.ndarray) -> tuple[float, float]:
    """Shares reach to their best end, so that the room for more is seen."""
    if by.is_share and by.better == "higher":
        return max(0.0, values.min(initial=1.0) - 0.05), 1.03
    if by.is_share:
        return -0.03, min(1.0, values.max(initial=0.0) + 0.05)
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _logarithmic(values: np.ndarray) -> tuple[float, float]:
    # A loss of exactly 0 has no place on such an axis.
    values = values[values > 0]
    return (values.min() / 1.4, values.max() * 1.4) if len(values) else (0.1, 1.0)


def _finite(frame: pd.DataFrame, metric: str) -> np.ndarray:
    values = frame[[metric, f"val_{metric}"]].to_numpy(float)
    return values[np.isfinite(values)]


def curves(chain: Chain, shared: SharedAxes, salt: str) -> str:
    """Draws a chain: the compared figure, the loss, and the share of zeros where any has it.

    Args:
        chain: one with epochs.
        shared: of all the chains beside it.
        salt: the figure's own.

    Returns:
        An SVG element.
    """
    by = chain.by
    panels = [(by.name, short_name(by.axis_title, 24), _FIGURE)]
    panels += [("loss", "loss", _LOSS)] if by.name != "loss" else []
    panels += [("sparsity", "zeros", _ZEROS)] if shared.sparsity else []
    height = _NAMES + sum(size + _GAP for *_, size in panels) + 16
    with style(salt):
        figure = canvas(WIDTH, height)
        top, drawn, widths = float(_NAMES), list["Axes"](), list[float]()
        for metric, title, size in panels:
            axes = panel(
                figure, _LEFT, height - top - size, _RIGHT, top, drawn[0] if drawn else None
            )
            top += size + _GAP
            drawn.append(axes)
            _scale(axes, metric, shared, by)
            _lines(axes, metric, chain)
            # At the left edge of the figure, where no step's name begins.
            named = axes.annotate(
                title,
                (0, 1),
                (-_LEFT + 2, 7),
                xycoords="axes fraction",
                textcoords="offset points",
                color=colour("muted"),
            )
            widths.append(named.get_window_extent().width)
        _abscissa(drawn, chain)
        _step_names(drawn[0], chain, widths[0])
        return inline(figure, salt=salt, title=_title(chain))


def _title(chain: Chain) -> str:
    by = chain.by
    ends = [
        history.loc[history["at"] == at, f"val_{by.name}"].item()
        for history, at in zip(chain.histories, chain.left, strict=True)
        if len(history)
    ]
    mean = float(np.mean(ends))
    digits = 1 if by.is_share else None
    stopped = any(
        at < history["at"].iloc[-1]
        for history, at in zip(chain.histories, chain.left, strict=True)
        if len(history)
    )
    ending = (
        f"validation {by.noun} {by.number.text(mean, digits)} "
        f"{'after the best epoch' if stopped else 'at the end'}"
        if np.isfinite(mean)
        else "not validated"
    )
    steps = ", ".join(stretch.step for stretch in chain.stretches)
    return f"Training of {chain.variant}: {steps}; {chain.epochs} epochs, {ending}."


def _scale(axes: Axes, metric: str, shared: SharedAxes, by: Figure) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axes.grid(axis="y")
    compared = metric == by.name
    if shared.logarithmic if compared else metric == "loss":
        limits = shared.figure if compared else shared.loss
        axes.set_yscale("log")
        axes.set_ylim(*limits)
        axes.yaxis.set_major_locator(FixedLocator(round_numbers(*limits)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    axes.set_ylim(*(shared.figure if compared else (0, 1.05)))
    axes.yaxis.set_major_locator(MaxNLocator(5) if compared else FixedLocator([0, 0.5, 1]))
    if compared and not by.is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: by.tick(value)))
        return
    within = FuncFormatter(lambda value, _: f"{value:.0%}" if -1e-9 <= value <= 1 + 1e-9 else "")
    axes.yaxis.set_major_formatter(within)


def _lines(axes: Axes, metric: str, chain: Chain) -> None:
    several = len(chain.histories) > 1
    looks: dict[str, dict[str, Any]] = {
        metric: {"color": colour("muted"), "lw": 1.0, "ls": (0, (3, 1.5))},
        f"val_{metric}": {"color": colour("accent"), "lw": 1.5},
    }
    if metric == "sparsity":
        looks = {metric: {"color": colour("ink"), "lw": 1.2}}
    for history in chain.histories:
        for column, look in looks.items():
            # One epoch makes no line.
            dots: dict[str, Any] = {"marker": "o", "markersize": 2.5} if chain.epochs <= 8 else {}
            axes.plot(
                history["at"],
                history[column].where(np.isfinite(history[column])),
                **(look | dots | ({"lw": 0.9, "alpha": 0.75} if several else {})),
            )
    if metric == chain.by.name:
        for at, after in chain.removals:
            axes.plot(
                [at + 0.5],
                [after],
                marker="o",
                markersize=4.5,
                markerfacecolor="none",
                markeredgecolor=colour("series-4"),
                markeredgewidth=1.2,
            )


def _abscissa(drawn: list[Axes], chain: Chain) -> None:
    from matplotlib.ticker import MaxNLocator

    first, last = drawn[0], drawn[-1]
    first.set_xlim(0.5, chain.epochs + 0.5)
    for axes in drawn:
        axes.tick_params(labelbottom=axes is last)
        # A line stands between two steps, half an epoch from either's nearest.
        for stretch in chain.stretches[1:]:
            axes.axvline(stretch.begin + 0.5, color=colour("muted"), lw=0.7, alpha=0.7, zorder=1)
    last.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    last.set_xlabel("epochs of the whole chain", color=colour("muted"), loc="right")


def _step_names(axes: Axes, chain: Chain, title: float) -> None:
    """Names over the first panel: of what trains in one row, of what does not in one above.

    The width of the panel's own title is needed, because that stands in the lower row.

    Where they do not fit, their numbers stand there: the caption has the names.
    """
    names = [short_name(stretch.step, 16) for stretch in chain.stretches]
    if not _fits(axes, chain, names, title):
        names = [str(number) for number in range(1, len(names) + 1)]
        if not _fits(axes, chain, names, title):
            return
    for stretch, name in zip(chain.stretches, names, strict=True):
        axes.annotate(
            name,
            (stretch.begin + 0.5 + stretch.epochs / 2, 1),
            (0, 6 if stretch.epochs else 18),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize=10,
            annotation_clip=False,
        )


def _fits(axes: Axes, chain: Chain, names: Sequence[str], title: float) -> bool:
    wide = WIDTH - _LEFT - _RIGHT
    # It begins at the left edge of the figure.
    begin = max(8.0, title - _LEFT + 8)
    ends = {True: -float("inf"), False: -float("inf")}
    for stretch, name in zip(chain.stretches, names, strict=True):
        text = axes.text(0, 0, name, fontsize=10)
        width = text.get_window_extent().width
        text.remove()
        middle = (stretch.begin + stretch.epochs / 2) / chain.epochs * wide
        trains = stretch.epochs > 0
        left, right = middle - width / 2, middle + width / 2
        if left < max(ends[trains] + 4, begin if trains else 0) or right > wide + _RIGHT:
            return False
        ends[trains] = right
    return True


def section(variants: Sequence[Sequence[Delivery]], by: Figure = ACCURACY) -> dict[str, Any]:
    """What the page shows of training: the curves of each variant.

    Args:
        variants: the deliveries of each variant.
        by: what the run is compared by.
    """
    chains = [chain(deliveries, by) for deliveries in variants]
    trained = [one for one in chains if one.epochs]
    shared = shared_axes(trained) if trained else None
    return {
        "figures": [
            (one, _numbered_steps(one), curves(one, shared, f"training-{place}"))
            for place, one in enumerate(trained)
            if shared
        ],
        "untrained": [one.variant for one in chains if not one.epochs],
        "removals": any(one.removals for one in trained),
        "zeros": bool(shared and shared.sparsity),
        "logarithmic": _on_logarithmic_scales(by, shared),
    }


def _on_logarithmic_scales(by: Figure, shared: SharedAxes | None) -> str:
    if shared and shared.logarithmic and by.name != "loss":
        return f"{by.sentence} and loss are"
    return "Loss is"


def _numbered_steps(chain: Chain) -> str:
    return ", ".join(
        f"{number} {stretch.step}" for number, stretch in enumerate(chain.stretches, start=1)
    )
