"""The tables of a run, read from the records beside its artifacts, and their means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune import figures
from tfprune.errors import TfpruneError
from tfprune.figures import ACCURACY, Figure
from tfprune.files import sha256
from tfprune.report.run import Delivery, Run
from tfprune.report.text import with_units

NAMES = ("run", "variant", "seed", "artifact")
"""The columns of `comparison` that say whose figures a row has."""
_GROUP = ["run", "variant", "artifact"]
_LAYER_COLUMNS = ("layer", "weight", "size", "zeros", "sparsity")


def comparison(run: Run) -> pd.DataFrame:
    """Compares all artifacts of a run.

    Example:
        >>> comparison(read_run(Path("saved_models/digits")))[["variant", "artifact", "accuracy"]]

    Args:
        run: what `read_run` read.

    Returns:
        One row an artifact of a variant and seed, with columns run, variant, seed, artifact (the
        format), and then the figures of `tfprune.figures.compared`, in its order and for the
        figure of the run, which comes first: shares 0 to 1, bytes, milliseconds.

    Raises:
        TfpruneError: an artifact is missing or was changed after it was measured.
    """
    rows = []
    for delivery in run.deliveries:
        for artifact in delivery.record["artifacts"]:
            path = delivery.folder / artifact["path"]
            if not path.is_file() or sha256(path) != artifact["sha256"]:
                raise TfpruneError(
                    f"{path} is not the file that was measured: delete its folder and run again"
                )
            whose = (run.directory.name, delivery.variant, delivery.seed, artifact["format"])
            values = artifact_figures(run, delivery, artifact)
            rows.append({**dict(zip(NAMES, whose, strict=True)), **values})
    table = pd.DataFrame(rows)
    # A figure that no artifact has is still a column of numbers.
    named = [column for column in table.columns if column not in NAMES]
    table[named] = table[named].apply(pd.to_numeric)
    return table


def artifact_figures(run: Run, delivery: Delivery, artifact: Mapping[str, Any]) -> dict[str, Any]:
    """The compared figures of one artifact, as its records have them; None where one is not known.

    Args:
        run: what `read_run` read.
        delivery: one of its deliveries.
        artifact: an entry of the delivery's artifacts.
    """
    total, nonzero = artifact["parameters"], artifact["nonzero_parameters"]
    sparsity = 1 - nonzero / total if total and nonzero is not None else None
    records: dict[str, Mapping[str, Any]] = {
        "artifact": {**artifact, "sparsity": sparsity},
        "file": artifact,
        "variant": delivery.record,
        "latency": run.latency_of(delivery, artifact) or {},
        "training": _training(delivery),
    }
    return {
        row.name: records[row.source].get(row.record_key) for row in figures.compared(run.figure)
    }


def _training(delivery: Delivery) -> dict[str, float | None]:
    """Epochs of a variant's whole chain, and the mean seconds of one."""
    epochs, seconds = 0, 0.0
    for step in delivery.steps:
        epochs += step.record.get("epochs", 0)
        seconds += step.record.get("epochs", 0) * step.record.get("seconds_per_epoch", 0.0)
    return {"epochs": epochs, "epoch_seconds": seconds / epochs if epochs else None}


def planned(run: Run) -> pd.DataFrame:
    """The comparison of all that a run's pipeline plans, finished or not.

    Example:
        >>> run = read_run(Path("saved_models/digits"))
        >>> print(render(over_seeds(planned(run), run.figure), by=run.figure))

    Args:
        run: what `read_run` read.

    Returns:
        The table of `comparison`, in the order of the pipeline. What is planned and missing (see
        `Run.lacking`) has a row without figures, and the artifact "" where the run does not say
        its formats.

    Raises:
        TfpruneError: an artifact is missing or was changed after it was measured.
    """
    measured = comparison(run)
    if not run.lacking:
        return measured
    name = run.directory.name
    lacking = pd.DataFrame(
        [(name, gap.variant, gap.seed, gap.artifact) for gap in run.lacking],
        columns=list(NAMES),
    )
    table = pd.concat([measured, lacking], ignore_index=True)
    order = {variant: place for place, variant in enumerate(run.record["pipeline"]["variants"])}
    ranks = table["variant"].map(order).fillna(len(order))
    return (
        table.assign(rank=ranks)
        .sort_values(["rank", "seed"], kind="stable", ignore_index=True)
        .drop(columns="rank")
    )


def is_measured(table: pd.DataFrame) -> pd.Series:
    """Which rows of a `planned` table have a figure: what is missing has none."""
    return table.drop(columns=list(NAMES), errors="ignore").notna().any(axis=1)


def example_count(artifact: Mapping[str, Any]) -> int | None:
    """How many test examples an artifact was measured on; None where its record does not say.

    Args:
        artifact: an entry of a delivery's artifacts; older ones call them images.
    """
    return artifact.get("test_examples") or artifact.get("test_images")


def confidence_interval(share: float, examples: int) -> tuple[float, float]:
    """The 95% confidence interval of a proportion, such as an accuracy, after Wilson (1927).

    Example:
        >>> low, high = confidence_interval(0.95, 200)
        >>> round(low, 3), round(high, 3)
        (0.91, 0.973)

    Args:
        share: of the test examples, those that are right, or those that are wrong.
        examples: how many test examples there were.

    Returns:
        Its lower and its upper end, within 0 and 1; it holds near 0 and 1 too. NaN for NaN.
    """
    if math.isnan(share):
        return math.nan, math.nan
    # Imported late: tables are printed without it.
    from scipy.stats import binomtest

    interval = binomtest(round(share * examples), examples).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Spread:
    """What several seeds measured, in the order of the table that it was computed from.

    Attributes:
        means: one row a run, variant and artifact, its columns as in `comparison` without `seed`;
            NaN where a seed that has figures lacks this one, or has NaN.
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

    Example:
        >>> spread(comparison(run)).means[["variant", "artifact", "accuracy"]]

    Args:
        table: what `comparison` returned.
    """
    measured = is_measured(table)
    figures_of = table.drop(columns="seed")
    groups = figures_of.groupby(_GROUP, sort=False)
    there = table[_GROUP].assign(there=measured).groupby(_GROUP, sort=False)
    # A seed that is measured and lacks a figure, such as a loss that became NaN, is no seed to
    # leave out: then the mean of all is not known.
    values = figures_of.columns.drop(_GROUP)
    lacking = (
        figures_of[values]
        .isna()
        .mul(measured, axis=0)
        .groupby([table[name] for name in _GROUP], sort=False)
        .any()
        .reset_index(drop=True)
    )

    def known(found: pd.DataFrame) -> pd.DataFrame:
        whole = found.reset_index()
        return whole.assign(**{name: whole[name].mask(lacking[name]) for name in values})

    return Spread(
        known(groups.mean()),
        known(groups.std()),
        there["there"].sum().reset_index(drop=True),
        groups.size().reset_index(drop=True),
    )


def over_seeds(table: pd.DataFrame, by: Figure = ACCURACY) -> pd.DataFrame:
    """One row a variant and artifact: the mean over its seeds.

    Example:
        >>> print(render(over_seeds(planned(run), run.figure), "markdown", run.figure))

    Args:
        table: what `comparison` returned.
        by: what its rows are compared by, such as `Run.figure`.

    Returns:
        The same columns without `seed`; with several seeds a column `seeds` counts them, and
        figures become text, "mean ± sample deviation", the deviation left out where it would be
        rounded to nothing. Where seeds are missing, `seeds` says how many of how many there are,
        and a row without any says "missing". `run` is left out where there is only one.
    """
    summary = spread(table)
    shown = summary.means.copy()
    for column in shown.columns.drop(_GROUP):
        row = figures.figure(str(column), by)
        texts = [
            row.text(mean, deviation)
            for mean, deviation in zip(shown[column], summary.deviations[column], strict=True)
        ]
        if any("±" in text for text in texts):
            shown[column] = texts
    if (summary.seeds < summary.planned).any():
        counts = zip(summary.seeds, summary.planned, strict=True)
        shown.insert(3, "seeds", [f"{seeds} of {planned}" for seeds, planned in counts])
        first = shown.columns[4]
        shown[first] = with_units(shown[[first]], by).iloc[:, 0].mask(summary.seeds == 0, "missing")
    elif (summary.seeds > 1).any():
        shown.insert(3, "seeds", summary.seeds)
    return shown.drop(columns="run") if shown["run"].nunique() == 1 else shown


def layer_sparsity(run: Run) -> pd.DataFrame:
    """Zeros of every weight of every variant.

    Example:
        >>> print(render(per_layer(layer_sparsity(run))))

    Args:
        run: what `read_run` read.

    Returns:
        The tables of `tfprune.sparsity`, one below the other, with columns run, variant and seed
        in front.

    Raises:
        TfpruneError: the table of a variant is missing or damaged.
    """
    parts = []
    for delivery in run.deliveries:
        part = _layers(delivery.folder / "sparsity.csv")
        part.insert(0, "run", run.directory.name)
        part.insert(1, "variant", delivery.variant)
        part.insert(2, "seed", delivery.seed)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _layers(path: Path) -> pd.DataFrame:
    """The table of one delivery, checked."""
    if not path.is_file():
        raise TfpruneError(f"{path} is missing: delete its folder and run again")
    try:
        part = pd.read_csv(path, keep_default_na=False, float_precision="round_trip")
    except (OSError, ValueError) as error:
        raise TfpruneError(f"{path} is damaged: delete its folder and run again") from error
    whole = (
        set(_LAYER_COLUMNS) <= set(part.columns)
        and all(pd.api.types.is_numeric_dtype(part[column]) for column in _LAYER_COLUMNS[2:])
        # The last row is the sum of all others: a table that was cut short has none.
        and len(part) > 0
        and part["layer"].iloc[-1] == "total"
        and part["size"].iloc[-1] == part["size"].iloc[:-1].sum()
    )
    if not whole:
        raise TfpruneError(f"{path} is damaged: delete its folder and run again")
    return part


def are_kernels(layers: pd.DataFrame) -> pd.Series:
    """Which rows of a `layer_sparsity` table are kernels or the total of the model."""
    return layers["weight"].str.contains("kernel") | (layers["layer"] == "total")


def per_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Sparsity of every kernel, a column a variant.

    Example:
        >>> print(render(per_layer(layer_sparsity(run)), "markdown"))

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
    return wide[are_kernels(wide)].reset_index(drop=True)
