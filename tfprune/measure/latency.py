"""How long one example takes, measured fairly: in turn, and apart from what would disturb it."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from tfprune.errors import UsageError
from tfprune.formats import Runtime, file_type, load
from tfprune.formats.registry import TENSORFLOW
from tfprune.formats.runtime import Example, limit_threads
from tfprune.formats.sandbox import shared

# The net before has filled the caches. After three calls a net has its own speed: timed at once, a
# net of 60 microseconds looked 1.25 times slower, and one of 2 microseconds 3 times.
_UNTIMED = 3
# Calls that a net times before it is the next one's turn.
_TURN = 10
# One turn of each net should not take longer than this.
_ROUND_NS = 200_000_000
# A net that takes longer than this for a call gains nothing from warm caches.
_LONG_NS = 20_000_000
# Turns of each library, where files of several are timed: drift falls on all of them alike.
_PARTS = 5
_LOAD_SECONDS = 600.0

_alone = threading.Lock()

Clock = Callable[[], int]
T = TypeVar("T")


def latency(
    runtimes: Mapping[str, Runtime],
    example: Example,
    *,
    rounds: int = 200,
    warmup: int = 10,
    seconds_budget: float = 30.0,
    clock: Clock = time.perf_counter_ns,
) -> pd.DataFrame:
    """Times inference of one example by several models in this process, alternating between them.

    A machine's speed drifts within minutes. So the models take turns of ten calls, in an order
    that rotates, and drift falls on all of them alike. A turn begins with three calls that are not
    timed, since the model before has filled the caches. Compare medians of one call of this
    function, never of two.

    A model with a fixed batch runs it whole, and its time is divided by the batch: every row is the
    time of one example.

    Give models of one library only, TensorFlow or LiteRT or ONNX Runtime: beside TensorFlow's
    threads the others take several times their own time. `time_files` sees to that.

    Args:
        runtimes: Models by the name of their row, from `load`. TFLite models run on the threads
            given there (one by default).
        example: What the models take, without the batch: an image of pixels 0..255, shape
            `(h, w, c)`, say; for several inputs arrays by the names of the inputs.
        rounds: Timed calls of each model, at least 1.
        warmup: Untimed calls of each model before all others.
        seconds_budget: After this time no further turns begin; one call of each is always timed.
        clock: Gives nanoseconds.

    Returns:
        One row a model, in the order given, with columns runtime, format, median_ms, p10_ms,
        p90_ms (milliseconds; between the last two lie four of five calls), runs, threads (0:
        TensorFlow chooses), and delegate ("XNNPACK" or "none").

    Raises:
        UsageError: There is no model, some but not all run in TensorFlow, a number is out of
            range, or the example does not fit.
    """
    _check(runtimes, rounds, warmup, seconds_budget)
    if len({each.library == TENSORFLOW for each in runtimes.values()}) > 1:
        raise UsageError(
            f"{' and '.join(runtimes)} would be timed beside TensorFlow, which makes the others "
            "several times slower: use time_files, or time them apart"
        )
    times = timed_calls(runtimes, example, rounds, warmup, seconds_budget, clock)
    return _table(
        {name: {**_described(each), **_spread(times[name])} for name, each in runtimes.items()}
    )


def time_files(
    files: Mapping[str, Path],
    example: Example,
    *,
    threads: int | None = None,
    rounds: int = 200,
    warmup: int = 10,
    seconds_budget: float = 30.0,
    modules: Sequence[str] = (),
) -> pd.DataFrame:
    """Times one example's inference by files of any format, each library in its own process.

    Files of one library take turns with each other, as in `latency`. TensorFlow (`.keras`,
    SavedModel), LiteRT (`.tflite`, `.cc`) and ONNX Runtime run in processes of their own, which
    take turns as well, one at a time: in company with TensorFlow's threads a small TFLite file
    takes 3 to 10 times its own time.

    Example:
        ```python
        time_files({"dense": Path("a.tflite"), "slim": Path("b.tflite")}, images[0])
        ```

    Args:
        files: Files that `load` takes, by the name of their row.
        example: See `latency`.
        threads: Threads of one call; None for 1 of TFLite and ONNX, and TensorFlow's own choice.
        rounds: Timed calls of each file, at least 1.
        warmup: Untimed calls of each file before all others.
        seconds_budget: Of all files together; one call of each is always timed.
        modules: What the processes import first, such as modules that register custom layers.

    Returns:
        As `latency`.

    Raises:
        UsageError: There is no file, its kind is unknown, a number is out of range, or the example
            does not fit.
        TfpruneError: A file is damaged, or crashes its runtime.
    """
    _check(files, rounds, warmup, seconds_budget)
    libraries: dict[str, dict[str, Path]] = {}
    for name, path in files.items():
        libraries.setdefault(file_type(path).library, {})[name] = path
    parts = min(_PARTS, rounds) if len(libraries) > 1 else 1
    # A child may use its whole share in one part when loading took long; this only ends hangs.
    patience = _LOAD_SECONDS + 10 * seconds_budget
    rows: dict[str, dict[str, object]] = {}
    times: dict[str, list[np.ndarray]] = {name: [] for name in files}

    # TensorFlow's threads are set once in a process.
    boxes = {library: shared(f"{library} on {threads} threads") for library in libraries}

    def ask(library: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
        return boxes[library].submit(function, libraries[library], threads, modules, *arguments)

    # Two measurements at a time would measure each other.
    with _alone:
        said = {library: " and ".join(group) for library, group in libraries.items()}
        loading = {library: ask(library, _open) for library in libraries}
        # Nothing is timed while another library still loads.
        for library, opened in loading.items():
            described = boxes[library].answer(opened, said[library], _LOAD_SECONDS)
            rows.update(described)
        for part in range(parts):
            calls = rounds * (part + 1) // parts - rounds * part // parts
            budget = seconds_budget / parts / len(libraries)
            for library in libraries:
                timing = ask(library, _timed, example, calls, warmup, budget)
                found = boxes[library].answer(timing, said[library], patience)
                for name, taken in found.items():
                    times[name].append(taken)
        for library in libraries:
            ask(library, _close)
    return _table({name: {**rows[name], **_spread(np.concatenate(times[name]))} for name in files})


def timed_calls(
    runtimes: Mapping[str, Runtime],
    example: Example,
    rounds: int,
    warmup: int,
    seconds_budget: float,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, np.ndarray]:
    """Milliseconds an example in each call, float64 (calls,), by the model's name.

    See `latency`.
    """
    calls = {name: runtime.one(example) for name, runtime in runtimes.items()}
    names = list(calls)

    def timed(name: str) -> int:
        begun = clock()
        calls[name]()
        return clock() - begun

    end = clock() + int(seconds_budget * 1e9)
    latest = dict.fromkeys(names, 0)
    for _ in range(warmup):
        for name in names:
            if clock() < end:
                latest[name] = timed(name)
    # Long calls are not worth keeping the others waiting for ten of them.
    turn = max(1, min(_TURN, _ROUND_NS // max(1, sum(latest.values()))))
    times: dict[str, list[int]] = {name: [] for name in names}
    for done in range(0, rounds, turn):
        late = clock() >= end
        if late and done:
            break
        first = done // turn % len(names)
        for name in names[first:] + names[:first]:
            if latest[name] < _LONG_NS and not late:
                for _ in range(_UNTIMED):
                    calls[name]()
            # Warming up may eat the budget, but not the one call that is promised.
            times[name] += [timed(name) for _ in range(1 if late else min(turn, rounds - done))]
    return {
        name: np.array(taken) / 1e6 / (runtimes[name].fixed_batch or 1)
        for name, taken in times.items()
    }


def _check(models: Mapping[str, object], rounds: int, warmup: int, seconds_budget: float) -> None:
    if not models:
        raise UsageError("no model to time: give at least one runtime")
    if rounds < 1 or warmup < 0 or seconds_budget <= 0:
        raise UsageError(
            f"rounds={rounds}, warmup={warmup}, seconds_budget={seconds_budget}: "
            "give at least 1 round, no negative warm-up and a budget above 0"
        )


def _table(rows: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    columns = ["runtime", "format", "median_ms", "p10_ms", "p90_ms", "runs", "threads", "delegate"]
    return pd.DataFrame([{"runtime": name, **row} for name, row in rows.items()])[columns]


def _described(runtime: Runtime) -> dict[str, object]:
    return {
        "format": runtime.format,
        "threads": runtime.threads,
        "delegate": runtime.delegate,
    }


def _spread(ms: np.ndarray) -> dict[str, object]:
    p10, median, p90 = np.percentile(ms, [10, 50, 90])
    return {
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "runs": len(ms),
    }


# -- what happens in a process of its own -------------------------------------------------------

_opened: dict[str, Runtime] = {}


def _open(
    files: Mapping[str, Path], threads: int | None, modules: Sequence[str]
) -> dict[str, dict[str, object]]:
    for module in modules:
        importlib.import_module(module)
    if any(file_type(path).library == TENSORFLOW for path in files.values()):
        limit_threads(threads)
    _opened.clear()
    _opened.update({name: load(path, threads=threads or 1) for name, path in files.items()})
    return {name: _described(runtime) for name, runtime in _opened.items()}


def _timed(
    files: Mapping[str, Path],
    threads: int | None,
    modules: Sequence[str],
    example: Example,
    rounds: int,
    warmup: int,
    seconds_budget: float,
) -> dict[str, np.ndarray]:
    # The process that opened them may have left: the others took long.
    if list(_opened) != list(files):
        _open(files, threads, modules)
    return timed_calls(_opened, example, rounds, warmup, seconds_budget)


def _close(*_arguments: object) -> None:
    _opened.clear()
