"""The tables of a run, read from the records beside its artifacts."""

from __future__ import annotations

import pandas as pd

from tfprune.errors import TfpruneError
from tfprune.files import sha256
from tfprune.report.run import Delivery, Run


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
                    "sparsity": 1 - nonzero / total,
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
    return pd.DataFrame(rows)


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
        part = pd.read_csv(delivery.folder / "sparsity.csv", keep_default_na=False)
        part.insert(0, "run", run.directory.name)
        part.insert(1, "variant", delivery.variant)
        part.insert(2, "seed", delivery.seed)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
