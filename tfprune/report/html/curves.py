"""Training curves: the histories of a variant's steps, joined end to end and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfprune.report.html.svg import (
    canvas,
    colour,
    inline,
    panel,
    round_numbers,
    short_name,
    style,
)
from tfprune.report.run import Delivery

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, _LEFT, _RIGHT, _GAP, _NAMES = 360, 46, 12, 24, 30
# Metric, title, height of its panel in points.
_PANELS = (("accuracy", "accuracy", 120), ("loss", "loss", 84), ("sparsity", "zeros", 44))
METRICS = ("accuracy", "val_accuracy", "loss", "val_loss", "sparsity")


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
        histories: a frame a seed: `at` (epochs from the chain's begin) and `METRICS`, NaN where a
            step did not record one.
        removals: `at` and the validation accuracy right after channels were removed, a row each.
    """

    variant: str
    stretches: tuple[Stretch, ...]
    histories: tuple[pd.DataFrame, ...]
    removals: tuple[tuple[int, float], ...]

    @property
    def epochs(self) -> int:
        """Of all steps together."""
        return sum(stretch.epochs for stretch in self.stretches)


def chain(deliveries: Sequence[Delivery]) -> Chain:
    """Joins the histories of a variant's steps.

    Args:
        deliveries: one variant, a delivery a seed.
    """
    stretches: list[Stretch] = []
    parts: list[list[pd.DataFrame]] = [[] for _ in deliveries]
    removals: list[tuple[int, float]] = []
    begin = 0
    # A step begins where the longest of all seeds' steps before it ends.
    for steps in zip_longest(*(delivery.steps for delivery in deliveries)):
        longest = 0
        there = [(seed, step) for seed, step in enumerate(steps) if step is not None]
        for seed, step in there:
            frame = _history(step.record.get("history") or {})
            longest = max(longest, len(frame))
            frame.insert(0, "at", np.arange(begin + 1, begin + 1 + len(frame)))
            parts[seed].append(frame)
            after = (step.record.get("validation_accuracy") or {}).get("removed")
            if after is not None:
                removals.append((begin, float(after)))
        stretches.append(Stretch(str(there[0][1].record["step"]), begin, longest))
        begin += longest
    return Chain(
        deliveries[0].variant,
        tuple(stretches),
        tuple(_joined(frames) for frames in parts),
        tuple(removals),
    )


def _history(history: dict[str, list[float]]) -> pd.DataFrame:
    length = max((len(history[metric]) for metric in METRICS if metric in history), default=0)
    missing = [float("nan")] * length
    return pd.DataFrame({metric: history.get(metric, missing) for metric in METRICS}, dtype=float)


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # Empty frames would change the types of joined ones.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=["at", *METRICS], dtype=float)
    return pd.DataFrame(
        {
            column: np.concatenate([frame[column].to_numpy(float) for frame in filled])
            for column in ("at", *METRICS)
        }
    )


@dataclass(frozen=True)
class SharedAxes:
    """The axes that the plots of several chains share, so that they can be compared."""

    accuracy: tuple[float, float]
    loss: tuple[float, float]
    sparsity: bool


def shared_axes(chains: Sequence[Chain]) -> SharedAxes:
    """Limits within which all chains can be drawn.

    Args:
        chains: at least one.
    """
    every = pd.concat([history for chain in chains for history in chain.histories])
    accuracy = _finite(every, "accuracy")
    drops = np.array([after for chain in chains for _, after in chain.removals], float)
    loss = _finite(every, "loss")
    # The axis is logarithmic: a loss of exactly 0 has no place on it.
    loss = loss[loss > 0]
    lowest = min(accuracy.min(initial=1.0), drops.min(initial=1.0))
    return SharedAxes(
        (max(0.0, lowest - 0.05), 1.03),
        (loss.min() / 1.4, loss.max() * 1.4) if len(loss) else (0.1, 1.0),
        bool(every["sparsity"].notna().any()),
    )


def _finite(frame: pd.DataFrame, metric: str) -> np.ndarray:
    values = frame[[metric, f"val_{metric}"]].to_numpy(float)
    return values[np.isfinite(values)]


def curves(chain: Chain, shared: SharedAxes, salt: str) -> str:
    """Draws a chain: accuracy, loss, and the share of zeros where any chain has it.

    Args:
        chain: one with epochs.
        shared: of all the chains beside it.
        salt: the figure's own.

    Returns:
        An SVG element.
    """
    panels = [entry for entry in _PANELS if entry[0] != "sparsity" or shared.sparsity]
    height = _NAMES + sum(size + _GAP for *_, size in panels) + 16
    with style(salt):
        figure = canvas(WIDTH, height)
        top, drawn = float(_NAMES), list["Axes"]()
        for metric, title, size in panels:
            axes = panel(
                figure, _LEFT, height - top - size, _RIGHT, top, drawn[0] if drawn else None
            )
            top += size + _GAP
            drawn.append(axes)
            _scale(axes, metric, shared)
            _lines(axes, metric, chain)
            # At the left edge of the figure, where no step's name begins.
            axes.annotate(
                title,
                (0, 1),
                (-_LEFT + 2, 7),
                xycoords="axes fraction",
                textcoords="offset points",
                color=colour("muted"),
            )
        _abscissa(drawn, chain)
        _step_names(drawn[0], chain)
        return inline(figure, salt=salt, title=_title(chain))


def _title(chain: Chain) -> str:
    ends = [history["val_accuracy"].iloc[-1] for history in chain.histories if len(history)]
    mean = float(np.mean(ends))
    ending = f"validation accuracy {mean:.1%} at the end" if np.isfinite(mean) else "not validated"
    steps = ", ".join(stretch.step for stretch in chain.stretches)
    return f"Training of {chain.variant}: {steps}; {chain.epochs} epochs, {ending}."


def _scale(axes: Axes, metric: str, shared: SharedAxes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    percent = FuncFormatter(lambda value, _: f"{value:.0%}" if value <= 1 + 1e-9 else "")
    axes.grid(axis="y")
    if metric == "loss":
        axes.set_yscale("log")
        axes.set_ylim(*shared.loss)
        axes.yaxis.set_major_locator(FixedLocator(round_numbers(*shared.loss)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    axes.set_ylim(*(shared.accuracy if metric == "accuracy" else (0, 1.05)))
    axes.yaxis.set_major_locator(
        MaxNLocator(5) if metric == "accuracy" else FixedLocator([0, 0.5, 1])
    )
    axes.yaxis.set_major_formatter(percent)


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
    if metric == "accuracy":
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


def _step_names(axes: Axes, chain: Chain) -> None:
    """Names over the first panel: of what trains in one row, of what does not in one above.

    Where they do not fit, their numbers stand there: the caption has the names.
    """
    names = [short_name(stretch.step, 16) for stretch in chain.stretches]
    if not _fits(axes, chain, names):
        names = [str(number) for number in range(1, len(names) + 1)]
        if not _fits(axes, chain, names):
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


def _fits(axes: Axes, chain: Chain, names: Sequence[str]) -> bool:
    wide = WIDTH - _LEFT - _RIGHT
    ends = {True: -float("inf"), False: -float("inf")}
    for stretch, name in zip(chain.stretches, names, strict=True):
        text = axes.text(0, 0, name, fontsize=10)
        width = text.get_window_extent().width
        text.remove()
        middle = (stretch.begin + stretch.epochs / 2) / chain.epochs * wide
        trains = stretch.epochs > 0
        # To the left of the axes the panel's own title stands.
        left, right = middle - width / 2, middle + width / 2
        if left < max(ends[trains] + 4, 8 if trains else 0) or right > wide + _RIGHT:
            return False
        ends[trains] = right
    return True


def section(variants: Sequence[Sequence[Delivery]]) -> dict[str, Any]:
    """What the page shows of training: the curves of each variant.

    Args:
        variants: the deliveries of each variant.
    """
    chains = [chain(deliveries) for deliveries in variants]
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
    }


def _numbered_steps(chain: Chain) -> str:
    return ", ".join(
        f"{number} {stretch.step}" for number, stretch in enumerate(chain.stretches, start=1)
    )
