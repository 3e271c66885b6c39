"""Tables over seeds: what a person reads first."""

from __future__ import annotations

import pandas as pd

_FIXED = ["run", "variant", "artifact"]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row a variant and artifact: the mean over its seeds.

    Args:
        table: what `comparison` returned.

    Returns:
        The same columns without `seed`; with several seeds accuracy is text, "mean ± sample
        deviation", and a column `seeds` counts them. `run` is left out where there is only one.
    """
    order = table[_FIXED].drop_duplicates()
    groups = table.drop(columns="seed").groupby(_FIXED, sort=False)
    means = groups.mean().reset_index()
    counts = groups.size().to_numpy()
    if (counts > 1).any():
        deviations = groups["accuracy"].std().to_numpy()
        means.insert(3, "seeds", counts)
        means["accuracy"] = [
            f"{mean:.2%} ± {deviation:.2%}"
            for mean, deviation in zip(means["accuracy"], deviations, strict=True)
        ]
    means = order.merge(means, on=_FIXED)
    return means.drop(columns="run") if means["run"].nunique() == 1 else means


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
