"""Density of every layer, against the first variant: table and bars."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tfprune.report.html.svg import canvas, colour, inline, panel, short_name, style
from tfprune.report.sentences import percent
from tfprune.report.tables import are_kernels

WIDTH, _ROW, _TOP = 360, 22, 8
# More variants side by side fit neither a screen nor a sheet of paper.
_COLUMNS = 8


def densities(layers: pd.DataFrame) -> pd.DataFrame:
    """Density of every kernel before and after, the mean over seeds.

    Args:
        layers: what `layer_sparsity` returned, of one run.

    Returns:
        One row a variant and kernel, the model's total last, with columns variant, layer, weight,
        size (entries), density (share that is not zero), and, against the first variant, kept
        (share of its entries that are still there) and left (non-zeros, as a share of its
        entries), both NaN where the first variant has no such kernel.
    """
    places = ["variant", "layer", "weight"]
    means = (
        layers[are_kernels(layers)]
        .groupby(places, sort=False)[["size", "zeros"]]
        .mean()
        .reset_index()
    )
    first = means[means["variant"] == means["variant"].iloc[0]]
    base = first.set_index(["layer", "weight"])["size"].rename("base")
    # A left join keeps the order of the model.
    joined = means.join(base, on=["layer", "weight"])
    joined["density"] = 1 - joined["zeros"] / joined["size"]
    joined["kept"] = joined["size"] / joined["base"]
    joined["left"] = joined["density"] * joined["kept"]
    return joined[[*places, "size", "density", "kept", "left"]]


def bars(table: pd.DataFrame, variant: str, salt: str) -> str:
    """Draws a variant's layers: two bars where channels were removed, else one.

    Args:
        table: what `densities` returned.
        variant: whose layers.
        salt: the figure's own.

    Returns:
        An SVG element.
    """
    from matplotlib.ticker import FixedLocator, PercentFormatter

    rows = table[table["variant"] == variant].to_dict("records")
    before = table[table["variant"] == table["variant"].iloc[0]]
    was = before.set_index(["layer", "weight"])["density"].to_dict()
    height = _TOP + _ROW * len(rows) + 26
    with style(salt):
        figure = canvas(WIDTH, height)
        names = [short_name(row_name(row["layer"], row["weight"]), 18) for row in rows]
        # 6.2 points a letter are enough for every usual font.
        axes = panel(figure, 12 + 6.2 * max(map(len, names)), 26, 40, _TOP)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.grid(axis="x")
        axes.set_yticks(range(len(rows)), names)
        axes.spines["bottom"].set_visible(False)
        for place, row in enumerate(rows):
            slimmer = row["kept"] < 1 - 1e-9
            tall, at = (0.28, place + 0.17) if slimmer else (0.5, place)
            axes.barh(at, row["density"], tall, color=colour("accent"))
            if slimmer:
                axes.barh(place - 0.17, row["kept"], tall, color=colour("series-4"))
            before_it = was.get((row["layer"], row["weight"]))
            if before_it is not None:
                axes.plot(
                    [before_it] * 2,
                    [place - 0.4, place + 0.4],
                    color=colour("ink"),
                    lw=1.1,
                    clip_on=False,
                )
            axes.annotate(
                "" if pd.isna(row["left"]) else f"{row['left']:.0%}",
                (1, place),
                (38, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=10,
            )
        total = rows[-1]
        return inline(
            figure,
            salt=salt,
            title=f"Density of {variant}: {total['density']:.0%} of its weights are not zero, "
            f"and it has {total['kept']:.0%} of the first variant's parameters.",
        )


def row_name(layer: str, weight: str) -> str:
    """What a row is called: its layer, and its weight where that is more than "kernel"."""
    return layer if weight in ("kernel", "") else f"{layer} {weight}"


def section(layers: pd.DataFrame) -> dict[str, Any]:
    """What the page shows of layers: a table of all variants, and bars for each but the first.

    Args:
        layers: what `layer_sparsity` returned, of one run.
    """
    table = densities(layers)
    variants = [str(variant) for variant in table["variant"].unique()]
    by_place = {
        (row["variant"], row["layer"], row["weight"]): row for row in table.to_dict("records")
    }
    rows = []
    for layer, weight in table[["layer", "weight"]].drop_duplicates().itertuples(index=False):
        found = [by_place.get((variant, layer, weight)) for variant in variants]
        rows.append(
            {
                "name": row_name(layer, weight),
                "total": layer == "total" and not weight,
                "size": f"{found[0]['size']:,.0f}" if found[0] else "",
                "cells": [_density(row) for row in found],
            }
        )
    return {
        "variants": variants,
        "slimmer": bool((table["kept"] < 1).any()),
        "tables": [
            range(begin, min(begin + _COLUMNS, len(variants)))
            for begin in range(0, len(variants), _COLUMNS)
        ],
        "rows": sorted(rows, key=lambda row: bool(row["total"])),
        "figures": [
            (variant, bars(table, variant, f"density-{place}"))
            for place, variant in enumerate(variants)
            if place
        ],
    }


def _density(row: Any) -> dict[str, Any]:
    if row is None:
        return {"text": "\N{EN DASH}", "kept": "", "left": None}
    kept = "" if pd.isna(row["kept"]) or row["kept"] == 1 else f"{row['kept']:.0%} kept"
    left = None if pd.isna(row["left"]) else round(min(1.0, row["left"]), 3)
    return {"text": percent(row["density"]), "kept": kept, "left": left}
