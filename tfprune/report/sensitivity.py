"""A picture of `tfprune.filters.sensitivity`'s table."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tfprune.errors import TfpruneError, UsageError

PLOTS = (".svg", ".png", ".pdf")
# Beyond these many lines nobody tells them apart: the most sensitive groups keep their names.
_NAMED = 8


def plot_sensitivity(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Draws accuracy against the share of channels kept, a line a channel group.

    Example:
        >>> table = sensitivity(model, accuracy)
        >>> plot_sensitivity(table, "sensitivity.svg")

    Args:
        table: what `tfprune.filters.sensitivity` returned.
        path: an .svg, .png or .pdf file.

    Returns:
        The path.

    Raises:
        UsageError: another ending.
        TfpruneError: it cannot be written.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in PLOTS:
        raise UsageError(f"{path} ends in {path.suffix!r}: give one of {', '.join(PLOTS)}")
    whole = float(table["accuracy"].iloc[0])
    groups = table[table["layers"] != ""]
    worst = groups.groupby("layers", sort=False)["accuracy"].min().sort_values(kind="stable")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    start = pd.DataFrame([{"keep": 1.0, "accuracy": whole}])
    for place, layers in enumerate(worst.index):
        named = place < _NAMED
        rows = groups.loc[groups["layers"] == layers, ["keep", "accuracy"]]
        line = pd.concat([start, rows]).sort_values("keep")
        axes.plot(
            line["keep"],
            line["accuracy"],
            marker="o",
            markersize=3,
            linewidth=1.4 if named else 0.7,
            color=f"C{place}" if named else "0.75",
            label=str(layers) if named else None,
            zorder=2 if named else 1,
        )
    axes.axhline(whole, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_xlabel("share of the group's channels kept")
    axes.set_ylabel("accuracy, nothing retrained")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_xaxis()
    if len(worst):
        axes.legend(fontsize=8, frameon=False, title="most sensitive first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise TfpruneError(
            f"{path} cannot be written ({error.strerror}): give a place you can write to"
        ) from error
    return path
