"""Tables over seeds: what a person reads first."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from tfprune.report.render import for_people, measured
from tfprune.report.tables import is_measured

_FIXED = ["run", "variant", "artifact"]


@dataclass(frozen=True)
class Spread:
    """What several seeds measured, in the order of the table they came from.

    Attributes:
        means: one row a run, variant and artifact, its columns as in `comparison` without `seed`.
        deviations: the same rows and columns; sample deviations, NaN where there is one seed only.
        seeds: how many seeds each row has figures of.
        planned: how many seeds it should have.
    """

    means: pd.DataFrame
    deviations: pd.DataFrame
    seeds: pd.Series
    planned: pd.Series


def spread(table: pd.DataFrame) -> Spread:
    """Means and sample deviations over seeds.

    Args:
        table: what `comparison` returned.
    """
    groups = table.drop(columns="seed").groupby(_FIXED, sort=False)
    there = table[_FIXED].assign(there=is_measured(table)).groupby(_FIXED, sort=False)
    return Spread(
        groups.mean().reset_index(),
        groups.std().reset_index(),
        there["there"].sum().reset_index(drop=True),
        groups.size().reset_index(drop=True),
    )


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row a variant and artifact: the mean over its seeds.

    Args:
        table: what `comparison` returned.

    Returns:
        The same columns without `seed`; with several seeds a column `seeds` counts them, and
        figures become text, "mean ± sample deviation", the deviation left out where it would be
        rounded to nothing. Where seeds are missing, `seeds` says how many of how many there are,
        and a row without any says "missing". `run` is left out where there is only one.
    """
    this = spread(table)
    shown = this.means.copy()
    for column in shown.columns.drop(_FIXED):
        texts = [
            measured(str(column), mean, deviation)
            for mean, deviation in zip(shown[column], this.deviations[column], strict=True)
        ]
        if any("±" in text for text in texts):
            shown[column] = texts
    if (this.seeds < this.planned).any():
        shown.insert(
            3,
            "seeds",
            [
                f"{seeds} of {planned}"
                for seeds, planned in zip(this.seeds, this.planned, strict=True)
            ],
        )
        first = shown.columns[4]
        shown[first] = for_people(shown[[first]]).iloc[:, 0].mask(this.seeds == 0, "missing")
    elif (this.seeds > 1).any():
        shown.insert(3, "seeds", this.seeds)
    return shown.drop(columns="run") if shown["run"].nunique() == 1 else shown


def per_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Sparsity of every kernel, a column a variant.

    Args:
        table: what `layer_sparsity` returned.

    Returns:
        One row a layer and weight that some variant made sparse or slimmer, the total last. A
        cell reads "sparsity of size", the mean over seeds.
    """
    places, named = ["layer", "weight"], table.copy()
    if table["run"].nunique() > 1:
        named["variant"] = table["run"] + "/" + table["variant"]
    means = named.groupby(["variant", *places], sort=False)[["sparsity", "size"]].mean()
    cells = pd.Series(
        [
            f"{zeros:.1%} of {size:,.0f}"
            for zeros, size in zip(means["sparsity"], means["size"], strict=True)
        ],
        index=means.index,
    )
    # unstack sorts; the order of the model says more.
    columns, rows = named["variant"].unique(), named[places].drop_duplicates()
    wide = cells.unstack("variant").reindex(columns=columns).reset_index()
    wide = rows.merge(wide, on=places).fillna("")
    kernels = wide["weight"].str.contains("kernel") | (wide["layer"] == "total")
    return wide[kernels].reset_index(drop=True)
