"""What became of the rounds of a run: lottery tickets, their controls, and the dense network."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from tfprune.report.render import measured
from tfprune.report.run import Delivery, Run
from tfprune.report.tables import layer_sparsity

_FIGURES = ("accuracy", "early_stop_epoch", "early_stop_val_accuracy", "val_accuracy")
_COLUMNS = ("method", "level", "seed", "artifact", "density", *_FIGURES)
_TO = "\N{EN DASH}"


def tickets(run: Run) -> pd.DataFrame:
    """The levels of a run that prunes in rounds.

    Args:
        run: what `read_run` read.

    Returns:
        One row a variant that prunes at once, or that such a variant begins with, and a seed, by
        method, then level. Columns are method (the variant's name without its level), level (how
        often it was pruned; 0 is dense), seed, artifact (the format that accuracy is of), density
        (share of the delivered model's prunable weights that are not zero), accuracy (of the
        artifact on the test set), early_stop_epoch (the epoch of the last training with the
        lowest validation loss, as Frankle & Carbin 2019 measure speed of learning; it was not
        stopped there), early_stop_val_accuracy (after that epoch) and val_accuracy (at the end
        of training). NaN where it was not recorded. No rows where nothing prunes at once.
    """
    # What an earlier version of the pipeline left is of another lottery.
    known = run.record["pipeline"]["variants"]
    deliveries = [each for each in run.deliveries if each.variant in known]
    begun = {tuple(each.record["steps"][: _first(each)]) for each in deliveries if _level(each)}
    chosen = [
        each
        for each in deliveries
        if _level(each)
        or any(start[: len(each.steps)] == tuple(each.record["steps"]) for start in begun)
    ]
    if not begun:
        return pd.DataFrame(columns=list(_COLUMNS))
    densities = _densities(layer_sparsity(run))
    rows = [
        {
            "method": _method(each.variant, _level(each)),
            "level": _level(each),
            "seed": each.seed,
            **_tested(each),
            "density": densities[each.variant, each.seed],
            **_learned(each),
        }
        for each in chosen
    ]
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    # Methods stay in the order of the pipeline.
    rank = {method: place for place, method in enumerate(table["method"].unique())}
    return table.sort_values(
        ["method", "level", "seed"], key=lambda each: each.replace(rank), ignore_index=True
    )


def tickets_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method and level.

    Args:
        table: what `tickets` returned.

    Returns:
        Columns method, level, seeds (how many), density (their mean) and, for each of accuracy,
        early_stop_epoch, early_stop_val_accuracy and val_accuracy, its mean, and NAME_min and
        NAME_max, the lowest and the highest of the seeds.
    """
    groups = table.groupby(["method", "level"], sort=False)
    parts: dict[str, Any] = {"seeds": groups.size(), "density": groups["density"].mean()}
    for figure in _FIGURES:
        parts[figure] = groups[figure].mean()
        parts[f"{figure}_min"] = groups[figure].min()
        parts[f"{figure}_max"] = groups[figure].max()
    return pd.DataFrame(parts).reset_index()


def tickets_in_words(over: pd.DataFrame) -> pd.DataFrame:
    """The table of `tickets_over_seeds` for people: a cell a figure, "mean (lowest to highest)".

    Args:
        over: what `tickets_over_seeds` returned.

    Returns:
        Text in the columns method, level, density, accuracy, early-stop epoch, "val. accuracy
        then" and "val. accuracy".
    """

    def cell(row: dict[Any, Any], figure: str, column: str) -> str:
        mean, low, high = (
            measured(column, row[name]) for name in (figure, f"{figure}_min", f"{figure}_max")
        )
        return mean if low == high else f"{mean} ({low}{_TO}{high})"

    return pd.DataFrame(
        [
            {
                "method": str(row["method"]),
                "level": str(row["level"]),
                "density": f"{row['density']:.1%}",
                "accuracy": cell(row, "accuracy", "accuracy"),
                "early-stop epoch": cell(row, "early_stop_epoch", "early_stop_epoch"),
                "val. accuracy then": cell(row, "early_stop_val_accuracy", "accuracy"),
                "val. accuracy": cell(row, "val_accuracy", "accuracy"),
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


def _method(variant: str, level: int) -> str:
    """A variant's name without its level: ticket of ticket-3, and of a sweep of such."""
    return re.sub(rf"-{level}(?=-|$)", "", variant, count=1) if level else variant


def _tested(delivery: Delivery) -> dict[str, Any]:
    """The accuracy of the Keras artifact, which has the weights as they were trained."""
    artifacts = {each["format"]: each for each in delivery.record["artifacts"]}
    form = "keras" if "keras" in artifacts else next(iter(artifacts))
    return {"artifact": form, "accuracy": artifacts[form]["accuracy"]}


def _densities(layers: pd.DataFrame) -> dict[Any, float]:
    names = layers["weight"]
    kernels = layers[names.str.contains("kernel") | (names == "embeddings")]
    sums = kernels.groupby(["variant", "seed"])[["size", "zeros"]].sum()
    return (1 - sums["zeros"] / sums["size"]).to_dict()


def _learned(delivery: Delivery) -> dict[str, float]:
    """What the last training's history says."""
    histories = [step.record.get("history") for step in delivery.steps]
    history: dict[str, Any] = next((each for each in reversed(histories) if each), {})
    losses = np.asarray(history.get("val_loss", []), float)
    accuracies = np.asarray(history.get("val_accuracy", []), float)
    nan = float("nan")
    found = {"early_stop_epoch": nan, "early_stop_val_accuracy": nan, "val_accuracy": nan}
    if len(accuracies):
        found["val_accuracy"] = float(accuracies[-1])
    if np.isfinite(losses).any():
        best = int(np.nanargmin(losses))
        epochs = history.get("epoch", range(1, len(losses) + 1))
        found["early_stop_epoch"] = float(epochs[best])
        if len(accuracies) == len(losses):
            found["early_stop_val_accuracy"] = float(accuracies[best])
    return found
