"""Several files measured side by side: one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.data.adapting import Data, examples
from tfprune.data.splits import Examples, Split, by_name, leaves
from tfprune.errors import UsageError
from tfprune.figures import BASELINE_RATIOS, Figure
from tfprune.formats import Runtime, load
from tfprune.measure.evaluation import evaluate, task_of
from tfprune.measure.first_run import first_runs
from tfprune.measure.latency import time_files
from tfprune.measure.size import floor, gzip_bytes, raw_bytes, zstd_bytes
from tfprune.measure.sparsity import Parameters
from tfprune.tasks.spec import TaskSpec
from tfprune.tasks.task import Task

# Given what is evaluated and how many examples that are; see `tfprune.training.progress.counted`.
Counter = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


def measure_files(
    files: Sequence[str | Path],
    data: Data,
    *,
    task: Task | TaskSpec | None = None,
    baseline: str | Path | None = None,
    rounds: int = 200,
    threads: int | None = None,
    counter: Counter = lambda description, total: nullcontext(),
) -> pd.DataFrame:
    """Measures files of any format side by side, each figure in the file itself.

    Every file is first loaded and run once in a process of its own: that gives its peak memory, and
    a file that crashes its runtime does so there.

    Example:
        ```python
        measure_files(["net.keras", "net.tflite"], (x, y), baseline="net.keras")
        ```

    Args:
        files: Paths that `load` takes; one that is named twice counts once.
        data: Test examples with targets, in any form that `tfprune.data.examples` takes, such as
            (x, y) or a split, which is streamed. All of them are run, so they must come to an end.
            Several inputs are best named.
        task: What the files are compared by: what `tfprune.tasks.find_task` found, or a
            specification. None: as the first Keras file among them was compiled, else a
            classification.
        baseline: A file to compare the others with; it becomes the first row if it is not among
            them.
        rounds: Of the latency; each runs one example through every file.
        threads: Threads of a single example; None for 1 of TFLite and TensorFlow's own choice.
        counter: Makes the progress bar of an evaluation.

    Returns:
        One row a file, with columns
        artifact: The path as it was given.
        format: What the file is, by its content; see `Runtime.format`.
        batch: Examples that it takes at once; None for any number.
        accuracy, or the name of the task's figure: Of a classification the share of examples whose
            largest output is the label, 0 to 1.
        loss: The mean loss; of a classification the cross-entropy, nats.
        macs: Multiply-accumulates of one example; None where the file cannot tell.
        parameters, nonzero, sparsity: See `parameters`.
        bytes, bytes_gzip, bytes_zstd: Raw, after `gzip -9` and after `zstd -19`; None for the last
            two of a directory.
        floor_mask_bytes, floor_entropy_bytes: See `Floor`.
        zstd_to_mask, zstd_to_entropy: bytes_zstd over either floor; None where it is 0, or where
            there is no bytes_zstd.
        latency_ms, latency_p10_ms, latency_p90_ms, latency_runs: Of one example, milliseconds (a
            file with a larger batch runs it whole, and the time is divided by it); the
            files of a library take turns, each library in a process of its own. See `time_files`.
        threads, delegate: What the latency was measured with; see `Runtime`.
        memory_bytes: See `FirstRun`; on as many threads as the latency.
        test_seconds: Wall-clock time of the evaluation.
        per_class, class_images: Lists; see `per_class` and `class_examples` of `Evaluation`.
        With a baseline also, each against its row,
        bytes_ratio, gzip_ratio, macs_ratio, latency_ratio: The share that is left, 1.0 for the
            same; None where either is not known.
        accuracy_points: Difference of accuracy in percentage points, above 0 for a higher one; of
            another figure `NAME_points` if it is a share, else `NAME_difference` in its unit.
        The attribute `attrs["figure"]` of the table is the compared figure, with its unit and
        direction.

    Raises:
        UsageError: A file's kind is unknown, or examples, task and files do not fit each other.
        TfpruneError: A file is missing, damaged, or crashes its runtime.
    """
    names = list(dict.fromkeys(map(str, files)))
    if baseline is not None and str(baseline) not in names:
        names.insert(0, str(baseline))
    tested = _labelled(data)
    one = tested.sample(1) if isinstance(tested, Split) else tested[:1]
    paths = {name: Path(name) for name in names}
    first = first_runs([*paths.values()], threads=threads, input_shape=_shapes(one.inputs))
    runtimes = {name: load(name, threads=threads or 1) for name in names}
    tasks = _tasks(runtimes, task, tested)
    (figure,) = {each.figure.name: each.figure for each in tasks.values()}.values()
    example = _example(one.inputs, tasks[names[0]])
    # Before the evaluation, whose bar would take time from it.
    times = time_files(paths, example, threads=threads, rounds=rounds).to_dict("records")
    rows = []
    for name, run, time in zip(names, first, times, strict=True):
        with counter(name, len(tested)) as progress:
            found = evaluate(runtimes[name], tested, tasks[name], progress=progress)
        rows.append(
            {
                "artifact": name,
                "format": runtimes[name].format,
                "batch": runtimes[name].fixed_batch,
                # Where the loss is compared there is one column of it.
                **{figure.name: found.value, "loss": found.loss},
                "macs": runtimes[name].macs(),
                **_stored(name, runtimes[name]),
                "latency_ms": time["median_ms"],
                "latency_p10_ms": time["p10_ms"],
                "latency_p90_ms": time["p90_ms"],
                "latency_runs": time["runs"],
                "threads": time["threads"],
                "delegate": time["delegate"],
                "memory_bytes": run.memory_bytes,
                "test_seconds": found.seconds,
                "per_class": list(found.per_class),
                "class_images": list(found.class_examples),
            }
        )
    if baseline is not None:
        (base,) = [row for row in rows if row["artifact"] == str(baseline)]
        rows = [{**row, **_against(row, base, figure)} for row in rows]
    # Without a dtype of their own, whole numbers beside None would become floats.
    table = pd.DataFrame(rows, dtype=object)
    table.attrs["figure"] = figure
    return table


def _labelled(data: Data) -> Split | Examples:
    """Examples with targets; a split stays where it lies."""
    tested = data if isinstance(data, Split) else examples(data)
    given = len(tested.element_spec) if isinstance(tested, Split) else len(tested.given)
    if given < 2 or (isinstance(tested, Examples) and tested.targets is None):
        raise UsageError("data has no targets to measure with: give (x, y), or batches of both")
    if not len(tested):
        raise UsageError("data has no examples: give at least one")
    return tested


def _tasks(
    runtimes: dict[str, Runtime], task: Task | TaskSpec | None, tested: Split | Examples
) -> dict[str, Task]:
    """The task that each file is measured by; they have one figure."""
    if isinstance(task, Task):
        return dict.fromkeys(runtimes, task)
    keras_files = [name for name, each in runtimes.items() if each.format == "keras"]
    leading = task_of(runtimes[keras_files[0]], task, tested) if keras_files else None
    # Classifiers may differ in their classes, and any file shows that it is one.
    alone = leading is None or all(head.is_plain_classification for head in leading.heads)
    found = {
        name: task_of(each, task, tested)
        if alone or leading is None or name in keras_files
        else leading
        for name, each in runtimes.items()
    }
    figures = {name: each.figure.name for name, each in found.items()}
    if len(set(figures.values())) > 1:
        said = ", ".join(f"{name} by {figure}" for name, figure in figures.items())
        raise UsageError(f"the files are of several tasks ({said}): give the task to compare by")
    return found


def _shapes(inputs: Any) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """The shapes of one example; None where inputs have no names."""
    parts = leaves(inputs)
    if len(parts) == 1:
        return tuple(parts[0].shape[1:])
    if isinstance(inputs, dict):
        return {name: tuple(part.shape[1:]) for name, part in inputs.items()}
    return None


def _example(inputs: Any, task: Task) -> Any:
    """One example as it is timed."""
    parts = leaves(inputs)
    if len(parts) == 1:
        return parts[0][0]
    return {name: part[0] for name, part in by_name(inputs, task.ends.inputs).items()}


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


def _against(row: dict[str, Any], base: dict[str, Any], figure: Figure) -> dict[str, Any]:
    ratios: dict[str, Any] = {
        ratio.name: _share(row[ratio.of], base[ratio.of]) for ratio in BASELINE_RATIOS
    }
    difference = row[figure.name] - base[figure.name]
    if figure.number.unit == "%":
        return {**ratios, f"{figure.name}_points": 100 * difference}
    return {**ratios, f"{figure.name}_difference": difference}


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
