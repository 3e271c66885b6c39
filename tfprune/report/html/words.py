"""What a run found, in words; what a step does is told by `tfprune.pipeline.steps`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd


def change(points: float) -> str:
    """A change of accuracy, such as "loses 0.42 points".

    Args:
        points: percentage points, negative where accuracy fell.
    """
    rounded = round(points, 2)
    if rounded == 0:
        return "keeps the accuracy"
    return f"{'gains' if rounded > 0 else 'loses'} {abs(rounded):.2f} points"


def percent(ratio: float) -> str:
    """A ratio with three digits that count: "27.3%", "4.91%", "100%", "1,240%"."""
    if not math.isfinite(ratio):
        return ""
    # Never less than one digit nor more than two behind the point.
    digits = 0 if ratio >= 0.9995 or ratio == 0 else 1 if ratio >= 0.1 else 2
    return f"{ratio:,.{digits}%}"


def percent_exact(share: float) -> str:
    """An accuracy with two digits behind the point, as the table has it."""
    return f"{share:.2%}"


def against(row: Mapping[Any, Any], first: Mapping[Any, Any]) -> str:
    """What a variant changes against the first one, in the same format.

    Args:
        row: of the means; its accuracy, bytes_gzip, macs and latency_ms are read.
        first: the first variant's.
    """
    said = change(100 * (row["accuracy"] - first["accuracy"]))
    shares = [
        f"{percent(row[column] / first[column])} of the {title}"
        for column, title in (
            ("bytes_gzip", "compressed size"),
            ("macs", "MACs"),
            ("latency_ms", "latency"),
        )
        if not (pd.isna(row[column]) or pd.isna(first[column])) and first[column] > 0
    ]
    if len(shares) > 1:
        shares[-1] = f"and {shares[-1]}"
    return said + (" at " + (", " if len(shares) > 2 else " ").join(shares) if shares else "")


def removed(record: Mapping[str, Any]) -> str:
    """What a step that removed channels found, or nothing.

    Args:
        record: the step's.
    """
    gone = record.get("removed")
    if not isinstance(gone, Mapping):
        return ""
    count = sum(int(each) for each in gone.values())
    said = f"{count:,} channels of {len(gone)} layers went"
    accuracies = record.get("validation_accuracy")
    if isinstance(accuracies, Mapping) and accuracies:
        steps = ", ".join(
            f"{value:.1%} {_WHEN.get(name, name)}" for name, value in accuracies.items()
        )
        said += f"; validation accuracy {steps}"
    return said


_WHEN = {
    "before": "before",
    "removed": "without them",
    "recalibrated": "with BatchNorm's statistics taken anew",
}


def options(values: Mapping[str, Any]) -> str:
    """Keys and values on one line."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


def seconds(value: float) -> str:
    """A time people can grasp: "0.9 s", "42 s", "3 min 5 s", "2 h 7 min"."""
    if math.isnan(value):
        return ""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def moment(stamp: str | None) -> str:
    """A time of a session, readable; "killed or going on" where there is none."""
    if not stamp:
        return "killed or going on"
    return stamp.replace("T", " ").replace("+00:00", " UTC")
