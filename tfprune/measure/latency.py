"""How long one image takes, measured fairly: every model in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from tfprune.errors import UsageError
from tfprune.measure.interface import Runtime


def latency(
    runtimes: Mapping[str, Runtime],
    image: np.ndarray,
    *,
    rounds: int = 200,
    warmup: int = 10,
    seconds_budget: float = 30.0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> pd.DataFrame:
    """Times single-image inference of several models, alternating between them.

    A machine's speed drifts within minutes. So a round calls every model once, in an order that
    rotates by one place a round, and drift falls on all of them alike. Compare medians of one
    call of this function, never of two.

    Args:
        runtimes: Models by the name of their row, from `load`. TFLite models run on the threads
            given there (one by default).
        image: One image, pixels 0..255, shape `(h, w, c)`.
        rounds: Timed rounds, at least 1.
        warmup: Untimed rounds before them.
        seconds_budget: After this time no further round begins; one round is always timed.
        clock: Gives nanoseconds.

    Returns:
        One row a model, in the order given, with columns runtime, format, median_ms, p10_ms,
        p90_ms (milliseconds; between the last two lie four of five calls), runs, threads (0:
        TensorFlow chooses), and delegate ("XNNPACK" or "none").

    Raises:
        UsageError: There is no model, a number is out of range, or the image does not fit.
    """
    if not runtimes:
        raise UsageError("no model to time: give at least one runtime")
    if rounds < 1 or warmup < 0 or seconds_budget <= 0:
        raise UsageError(
            f"rounds={rounds}, warmup={warmup}, seconds_budget={seconds_budget}: "
            "give at least 1 round, no negative warm-up and a budget above 0"
        )
    calls = {name: runtime.one(image) for name, runtime in runtimes.items()}
    names = list(calls)
    times: dict[str, list[int]] = {name: [] for name in names}
    end = clock() + int(seconds_budget * 1e9)
    for round_ in range(-warmup, rounds):
        # Warming up may eat the budget, but not the one round that is promised.
        if clock() >= end and round_ != 0:
            if round_ > 0:
                break
            continue
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            begin = clock()
            calls[name]()
            took = clock() - begin
            if round_ >= 0:
                times[name].append(took)
    return pd.DataFrame([_row(name, runtimes[name], np.array(times[name]) / 1e6) for name in names])


def _row(name: str, runtime: Runtime, ms: np.ndarray) -> dict[str, object]:
    p10, median, p90 = np.percentile(ms, [10, 50, 90])
    return {
        "runtime": name,
        "format": runtime.format,
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "runs": len(ms),
        "threads": runtime.threads,
        "delegate": runtime.delegate,
    }
