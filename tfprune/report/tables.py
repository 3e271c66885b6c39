"""The tables of a run, read from the records beside its artifacts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tfprune.errors import TfpruneError
from tfprune.files import sha256
from tfprune.report.run import Delivery, Run

NAMES = ("run", "variant", "seed", "artifact")
"""The columns of `comparison` that say whose figures a row has."""


def is_measured(table: pd.DataFrame) -> pd.Series:
    """Which rows of a `comparison` have a figure: those of what is not there have none."""
    figures = table.drop(columns=list(NAMES), errors="ignore")
    return figures.notna().any(axis=1)


def _training(delivery: Delivery) -> tuple[int, float]:
    """Epochs of a variant's whole chain, and the mean seconds of one."""
    epochs, seconds = 0, 0.0
    for step in delivery.steps:
        epochs += step.record.get("epochs", 0)
        seconds += step.record.get("epochs", 0) * step.record.get("seconds_per_epoch", 0.0)
    return epochs, seconds / epochs if epochs else float("nan")


def comparison(run: Run) -> pd.DataFrame:
    """Compares all artifacts of a run.

    Args:
        run: what `read_run` read.

    Returns:
        One row an artifact of a variant and seed, with columns run, variant, seed, artifact (the
        format), accuracy (0 to 1) and loss (nats) of that artifact on the test set, parameters,
        nonzero, sparsity (0 to 1), macs (of one example), bytes, bytes_gzip, latency_ms (median
        of one image), epochs and epoch_seconds (of the variant's whole chain), test_seconds.

    Raises:
        TfpruneError: an artifact is missing or was changed after it was measured.
    """
    rows = []
    for delivery in run.deliveries:
        epochs, seconds = _training(delivery)
        for artifact in delivery.record["artifacts"]:
            path = delivery.folder / artifact["path"]
            if not path.is_file() or sha256(path) != artifact["sha256"]:
                raise TfpruneError(
                    f"{path} is not the file that was measured: delete its folder and run again"
                )
            total, nonzero = artifact["parameters"], artifact["nonzero_parameters"]
            rows.append(
                {
                    "run": run.directory.name,
                    "variant": delivery.variant,
                    "seed": delivery.seed,
                    "artifact": artifact["format"],
                    "accuracy": artifact["accuracy"],
                    "loss": artifact["loss"],
                    "parameters": total,
                    "nonzero": nonzero,
                    "sparsity": 1 - nonzero / total if total and nonzero is not None else None,
                    "macs": delivery.record["macs"],
                    "bytes": artifact["bytes_raw"],
                    "bytes_gzip": artifact["bytes_gzip"],
                    "latency_ms": run.latency_ms.get(
                        path.relative_to(run.directory).as_posix(), float("nan")
                    ),
                    "epochs": epochs,
                    "epoch_seconds": seconds,
                    "test_seconds": artifact["test_seconds"],
                }
            )
    found = pd.DataFrame(rows)
    # A figure that no artifact has is a column of numbers all the same.
    named = [column for column in found.columns if column not in NAMES]
    found[named] = found[named].apply(pd.to_numeric)
    return found


def planned(run: Run) -> pd.DataFrame:
    """The comparison of all that a run's pipeline plans, there or not.

    Args:
        run: what `read_run` read.

    Returns:
        The table of `comparison`, in the order of the pipeline. What is planned and not there (see
        `Run.lacking`) has a row without figures, and the artifact "" where the run does not say
        its formats.

    Raises:
        TfpruneError: an artifact is missing or was changed after it was measured.
    """
    found = comparison(run)
    if not run.lacking:
        return found
    name = run.directory.name
    lacking = pd.DataFrame(
        [(name, each.variant, each.seed, each.artifact) for each in run.lacking],
        columns=list(NAMES),
    )
    table = pd.concat([found, lacking], ignore_index=True)
    order = {variant: place for place, variant in enumerate(run.record["pipeline"]["variants"])}
    ranks = table["variant"].map(order).fillna(len(order))
    return (
        table.assign(rank=ranks)
        .sort_values(["rank", "seed"], kind="stable", ignore_index=True)
        .drop(columns="rank")
    )


def layer_sparsity(run: Run) -> pd.DataFrame:
    """Zeros of every weight of every variant.

    Args:
        run: what `read_run` read.

    Returns:
        The tables of `tfprune.sparsity`, one below the other, with columns run, variant and seed
        in front.
    """
    parts = []
    for delivery in run.deliveries:
        part = _layers(delivery.folder / "sparsity.csv")
        part.insert(0, "run", run.directory.name)
        part.insert(1, "variant", delivery.variant)
        part.insert(2, "seed", delivery.seed)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


_LAYER_COLUMNS = ("layer", "weight", "size", "zeros", "sparsity")


def _layers(path: Path) -> pd.DataFrame:
    """The table of one delivery, checked."""
    if not path.is_file():
        raise TfpruneError(f"{path} is missing: delete its folder and run again")
    try:
        part = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise TfpruneError(f"{path} is damaged: delete its folder and run again") from error
    numeric = [*_LAYER_COLUMNS[2:]]
    whole = (
        set(_LAYER_COLUMNS) <= set(part.columns)
        and all(pd.api.types.is_numeric_dtype(part[column]) for column in numeric)
        # The last row is the sum of all others: a table that was cut short has none.
        and len(part) > 0
        and part["layer"].iloc[-1] == "total"
        and part["size"].iloc[-1] == part["size"].iloc[:-1].sum()
    )
    if not whole:
        raise TfpruneError(f"{path} is damaged: delete its folder and run again")
    return part
