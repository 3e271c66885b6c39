"""The tables of a run, read from the records beside its artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, read_json
from tfprune.measure import sha256


def _deliveries(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of a run that hold exported variants, in the order of its pipeline."""
    found = [
        (path.parent, record)
        for path in sorted(run.glob(f"*/seed-*/{RECORD}"))
        if "artifacts" in (record := read_json(path))
    ]
    if not found:
        raise TfpruneError(
            f"{run} holds no finished variant: give the directory of a run, such as "
            "saved_models/digits, or run its pipeline first"
        )
    file = run / "run.json"
    order = read_json(file)["pipeline"]["variants"] if file.is_file() else {}
    rank = {variant: place for place, variant in enumerate(order)}
    found.sort(key=lambda each: (rank.get(each[1]["variant"], len(rank)), each[1]["seed"]))
    yield from found


def _training(run: Path, names: Sequence[str]) -> tuple[int, float]:
    """Epochs of a variant's whole chain, and the mean seconds of one."""
    epochs, seconds = 0, 0.0
    for name in names:
        record = read_json(run / "steps" / name / RECORD)
        epochs += record.get("epochs", 0)
        seconds += record.get("epochs", 0) * record.get("seconds_per_epoch", 0.0)
    return epochs, seconds / epochs if epochs else float("nan")


def _latencies(run: Path) -> dict[str, float]:
    return {
        row["runtime"]: row["median_ms"]
        for path in sorted(run.glob(f"latency/seed-*/{RECORD}"))
        for row in read_json(path)["latency"]
    }


def comparison(run: Path) -> pd.DataFrame:
    """Compares all artifacts of a run.

    Args:
        run: the directory of a run.

    Returns:
        One row an artifact of a variant and seed, with columns run, variant, seed, artifact (the
        format), accuracy (0 to 1) and loss (nats) of that artifact on the test set, parameters,
        nonzero, sparsity (0 to 1), macs (of one example), bytes, bytes_gzip, latency_ms (median
        of one image), epochs and epoch_seconds (of the variant's whole chain), test_seconds.

    Raises:
        TfpruneError: there is no finished variant, or an artifact is missing or was changed
            after it was measured.
    """
    latencies = _latencies(run)
    rows = []
    for folder, record in _deliveries(run):
        epochs, seconds = _training(run, record["steps"])
        for artifact in record["artifacts"]:
            path = folder / artifact["path"]
            if not path.is_file() or sha256(path) != artifact["sha256"]:
                raise TfpruneError(
                    f"{path} is not the file that was measured: delete its folder and run again"
                )
            total, nonzero = artifact["parameters"], artifact["nonzero_parameters"]
            rows.append(
                {
                    "run": run.name,
                    "variant": record["variant"],
                    "seed": record["seed"],
                    "artifact": artifact["format"],
                    "accuracy": artifact["accuracy"],
                    "loss": artifact["loss"],
                    "parameters": total,
                    "nonzero": nonzero,
                    "sparsity": 1 - nonzero / total,
                    "macs": record["macs"],
                    "bytes": artifact["bytes_raw"],
                    "bytes_gzip": artifact["bytes_gzip"],
                    "latency_ms": latencies.get(path.relative_to(run).as_posix(), float("nan")),
                    "epochs": epochs,
                    "epoch_seconds": seconds,
                    "test_seconds": artifact["test_seconds"],
                }
            )
    return pd.DataFrame(rows)


def layer_sparsity(run: Path) -> pd.DataFrame:
    """Zeros of every weight of every variant.

    Args:
        run: the directory of a run.

    Returns:
        The tables of `tfprune.sparsity`, one below the other, with columns run, variant and seed
        in front.

    Raises:
        TfpruneError: there is no finished variant.
    """
    parts = []
    for folder, record in _deliveries(run):
        part = pd.read_csv(folder / "sparsity.csv", keep_default_na=False)
        for place, name in enumerate(("variant", "seed")):
            part.insert(place, name, record[name])
        part.insert(0, "run", run.name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
