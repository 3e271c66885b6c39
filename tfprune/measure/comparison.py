"""Several files measured side by side: one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfprune.figures import BASELINE_RATIOS
from tfprune.formats import Runtime, load
from tfprune.measure.evaluation import evaluate
from tfprune.measure.first_run import first_runs
from tfprune.measure.latency import time_files
from tfprune.measure.size import floor, gzip_bytes, raw_bytes, zstd_bytes
from tfprune.measure.sparsity import Parameters

# Given what is evaluated and how many images that are; see `tfprune.training.progress.counted`.
Counter = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


def measure_files(
    files: Sequence[str | Path],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    baseline: str | Path | None = None,
    rounds: int = 200,
    threads: int | None = None,
    counter: Counter = lambda description, total: nullcontext(),
) -> pd.DataFrame:
    """Measures files of any format side by side, each figure in the file itself.

    Every file is first loaded and run once in a process of its own: that gives its peak memory, and
    a file that crashes its runtime does so there.

    Args:
        files: Paths that `load` takes; one that is named twice counts once.
        images: Test images, pixels 0..255, shape `(n, h, w, c)`.
        labels: Class numbers, shape `(n,)` or `(n, 1)`.
        baseline: A file to compare the others with; it becomes the first row if it is not among
            them.
        rounds: Of the latency; each runs one image through every file.
        threads: Threads of a single image; None for 1 of TFLite and TensorFlow's own choice.
        counter: Makes the progress bar of an evaluation.

    Returns:
        One row a file, with columns
        artifact: The path as it was given.
        format: What the file is, by its content; see `Runtime.format`.
        accuracy: Share of images whose largest output is the label, 0 to 1.
        loss: Mean cross-entropy, nats.
        macs: Multiply-accumulates of one image; None where the file cannot tell.
        parameters, nonzero, sparsity: See `parameters`.
        bytes, bytes_gzip, bytes_zstd: Raw, after `gzip -9` and after `zstd -19`; None for the last
            two of a directory.
        floor_mask_bytes, floor_entropy_bytes: See `Floor`.
        zstd_to_mask, zstd_to_entropy: bytes_zstd over either floor; None where it is 0, or where
            there is no bytes_zstd.
        latency_ms, latency_p10_ms, latency_p90_ms, latency_runs: Of one image, milliseconds; the
            files of a library take turns, each library in a process of its own. See `time_files`.
        threads, delegate: What the latency was measured with; see `Runtime`.
        memory_bytes: See `FirstRun`; on as many threads as the latency.
        test_seconds: Wall-clock time of the evaluation.
        per_class, class_images: Lists; see `Evaluation`.
        With a baseline also, each against its row,
        bytes_ratio, gzip_ratio, macs_ratio, latency_ratio: The share that is left, 1.0 for the
            same; None where either is not known.
        accuracy_points: Difference of accuracy in percentage points, above 0 for a better one.

    Raises:
        UsageError: A file's kind is unknown, or images and labels do not fit.
        TfpruneError: A file is missing, damaged, or crashes its runtime.
    """
    names = list(dict.fromkeys(map(str, files)))
    if baseline is not None and str(baseline) not in names:
        names.insert(0, str(baseline))
    shape = images.shape[1:]
    first = first_runs([Path(name) for name in names], threads=threads, input_shape=shape)
    runtimes = {name: load(name, threads=threads or 1) for name in names}
    # Before the evaluation, whose bar would take time from it.
    paths = {name: Path(name) for name in names}
    times = time_files(paths, images[0], threads=threads, rounds=rounds).to_dict("records")
    rows = []
    for name, run, time in zip(names, first, times, strict=True):
        with counter(name, len(images)) as progress:
            tested = evaluate(runtimes[name], (images, labels), progress=progress)
        rows.append(
            {
                "artifact": name,
                "format": runtimes[name].format,
                "accuracy": tested.value,
                "loss": tested.loss,
                "macs": runtimes[name].macs(),
                **_stored(name, runtimes[name]),
                "latency_ms": time["median_ms"],
                "latency_p10_ms": time["p10_ms"],
                "latency_p90_ms": time["p90_ms"],
                "latency_runs": time["runs"],
                "threads": time["threads"],
                "delegate": time["delegate"],
                "memory_bytes": run.memory_bytes,
                "test_seconds": tested.seconds,
                "per_class": list(tested.per_class),
                "class_images": list(tested.class_examples),
            }
        )
    if baseline is not None:
        (base,) = [row for row in rows if row["artifact"] == str(baseline)]
        rows = [{**row, **_against(row, base)} for row in rows]
    # Without a dtype of their own, whole numbers beside None would become floats.
    return pd.DataFrame(rows, dtype=object)


def _stored(name: str, runtime: Runtime) -> dict[str, Any]:
    weights = list(runtime.weights())
    counted = Parameters(sum(w.size for w in weights), sum(len(w.living) for w in weights))
    least = floor(weights)
    packed = Path(name).is_file()
    zstd = zstd_bytes(name) if packed else None
    return {
        "parameters": counted.total,
        "nonzero": counted.nonzero,
        "sparsity": counted.sparsity,
        "bytes": raw_bytes(name),
        "bytes_gzip": gzip_bytes(name) if packed else None,
        "bytes_zstd": zstd,
        "floor_mask_bytes": least.mask_bytes,
        "floor_entropy_bytes": least.entropy_bytes,
        "zstd_to_mask": _share(zstd, least.mask_bytes),
        "zstd_to_entropy": _share(zstd, least.entropy_bytes),
    }


def _against(row: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    ratios: dict[str, Any] = {
        ratio.name: _share(row[ratio.of], base[ratio.of]) for ratio in BASELINE_RATIOS
    }
    return {**ratios, "accuracy_points": 100 * (row["accuracy"] - base["accuracy"])}


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
