"""A picture of `tfprune.filters.sensitivity`'s table."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import ACCURACY, Figure

PLOTS = (".svg", ".png", ".pdf")
# More lines than this cannot be told apart, so only the most sensitive groups have names.
_NAMED = 8


def plot_sensitivity(
    table: pd.DataFrame, path: str | os.PathLike[str], by: Figure = ACCURACY
) -> Path:
    """Draws a figure against the share of channels kept, a line a channel group.

    Example:
        >>> table = sensitivity(model, accuracy)
        >>> plot_sensitivity(table, "sensitivity.svg")

    Args:
        table: what `tfprune.filters.sensitivity` returned, with a column that is named as `by`.
        path: an .svg, .png or .pdf file.
        by: the figure that was measured; the groups where it is worst are named.

    Returns:
        The path.

    Raises:
        UsageError: another ending.
        TfpruneError: it cannot be written.
    """
    from matplotlib.figure import Figure as Sheet

    path = Path(path)
    if path.suffix not in PLOTS:
        raise UsageError(f"{path} ends in {path.suffix!r}: give one of {', '.join(PLOTS)}")
    whole = float(table[by.name].iloc[0])
    groups = table[table["layers"] != ""]
    gains = by.gain(groups[by.name]).groupby(groups["layers"], sort=False)
    worst = gains.min().sort_values(kind="stable")
    figure = Sheet(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    start = pd.DataFrame([{"keep": 1.0, by.name: whole}])
    for place, layers in enumerate(worst.index):
        named = place < _NAMED
        rows = groups.loc[groups["layers"] == layers, ["keep", by.name]]
        line = pd.concat([start, rows]).sort_values("keep")
        axes.plot(
            line["keep"],
            line[by.name],
            marker="o",
            markersize=3,
            linewidth=1.4 if named else 0.7,
            color=f"C{place}" if named else "0.75",
            label=str(layers) if named else None,
            zorder=2 if named else 1,
        )
    axes.axhline(whole, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_xlabel("share of the group's channels kept")
    axes.set_ylabel(f"{by.axis_title}, nothing retrained")
    axes.yaxis.set_major_formatter(lambda value, _: by.tick(value))
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
