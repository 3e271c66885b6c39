"""Sentences of the report: changes, removals, and where a run comes from.

What a step does is described by its kind, in `tfprune.pipeline.steps`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from tfprune import figures
from tfprune.figures import ACCURACY, Figure
from tfprune.report.records import VALIDATION
from tfprune.report.run import Run


def describe_change(value: float, base: float, by: Figure = ACCURACY) -> str:
    """A change of what a run is compared by, such as "loses 0.42 points" or "is 0.3 mm worse".

    Args:
        value: the figure.
        base: what it was before, or what another has.
        by: what it is.
    """
    if not math.isfinite(value - base):
        return f"has an unknown {by.noun}"
    digits = by.number.places(max(value, base, key=abs))
    size = by.number.difference(abs(value - base), digits)
    if size == by.number.difference(0.0, digits):
        return f"keeps the {by.noun}"
    better = by.gain(value) > by.gain(base)
    if by.is_share and by.better == "higher":
        return f"{'gains' if better else 'loses'} {size}"
    return f"is {size} {'better' if better else 'worse'}"


def percent(ratio: float) -> str:
    """A ratio with three digits that count: "27.3%", "4.91%", "100%", "1,240%"."""
    if not math.isfinite(ratio):
        return ""
    # From no decimals to two.
    digits = 0 if ratio >= 0.9995 or ratio == 0 else 1 if ratio >= 0.1 else 2
    return f"{ratio:,.{digits}%}"


def describe_against(
    row: Mapping[Any, Any], first: Mapping[Any, Any], by: Figure = ACCURACY
) -> str:
    """The change of a variant against the first one, in the same format.

    Args:
        row: of the means; the compared figure and the costs (`tfprune.figures.COSTS`) are read.
        first: the first variant's.
        by: what the run is compared by.
    """
    text = describe_change(row[by.name], first[by.name], by)
    shares = [
        f"{percent(row[cost.name] / first[cost.name])} of the {cost.noun}"
        for cost in map(figures.figure, figures.COSTS)
        if not (pd.isna(row[cost.name]) or pd.isna(first[cost.name])) and first[cost.name] > 0
    ]
    if len(shares) > 1:
        shares[-1] = f"and {shares[-1]}"
    return text + (" at " + (", " if len(shares) > 2 else " ").join(shares) if shares else "")


def describe_removal(record: Mapping[str, Any], by: Figure = ACCURACY) -> str:
    """What a step removed and how good the model was, or the empty text.

    Args:
        record: the step's.
        by: what the run is compared by.
    """
    gone = record.get("removed")
    if not isinstance(gone, Mapping):
        return ""
    count = sum(map(int, gone.values()))
    sentence = f"{count:,} channels of {len(gone)} layers went"
    values = record.get(VALIDATION + by.name)
    known = {name: value for name, value in (values or {}).items() if value is not None}
    if known:
        digits = 1 if by.is_share else None
        steps = ", ".join(
            f"{by.number.text(value, digits)} {_WHEN.get(name, name)}"
            for name, value in known.items()
        )
        sentence += f"; validation {by.noun} {steps}"
    return sentence


_WHEN = {
    "before": "before",
    "removed": "without them",
    "recalibrated": "with BatchNorm's statistics taken anew",
}


def key_values(values: Mapping[str, Any]) -> str:
    """Keys and values on one line."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


def duration(value: float) -> str:
    """A duration in at most two units: "0.9 s", "42 s", "3 min 5 s", "2 h 7 min"."""
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


def timestamp(stamp: str | None) -> str:
    """The time of a session as people write it; "killed or going on" where there is none."""
    if not stamp:
        return "killed or going on"
    return stamp.replace("T", " ").replace("+00:00", " UTC")


def provenance(run: Run) -> dict[str, Any]:
    """Where a run comes from: data, model, seeds, commands, commits, versions, machine.

    Args:
        run: what was read.

    Returns:
        data, model and seeds as text, and sessions, a list with the same keys each; versions and
        machine are empty where they are those of the session before.
    """
    pipeline = run.record.get("pipeline", {})
    model = pipeline.get("model", {})
    sessions, before = [], ("", "")
    for session in run.record.get("sessions", []):
        setup = (
            key_values(session.get("versions") or {}),
            describe_machine(session.get("machine") or {}),
        )
        sessions.append(
            {
                "command": str(session.get("command") or "unknown"),
                "commit": str(session.get("commit") or "unknown"),
                "seeds": ", ".join(str(seed) for seed in session.get("seeds") or []),
                "begun": timestamp(session["begun"]) if session.get("begun") else "unknown",
                "ended": timestamp(session.get("ended")),
                "versions": setup[0] if setup[0] != before[0] else "",
                "machine": setup[1] if setup[1] != before[1] else "",
            }
        )
        before = setup
    return {
        "data": str(run.record.get("data", "")),
        "model": f"{model.get('name', '')} {key_values(model.get('options') or {})}".strip(),
        "seeds": ", ".join(str(seed) for seed in run.record.get("seeds", [])),
        "sessions": sessions,
    }


def describe_machine(values: Mapping[str, Any]) -> str:
    """A machine on one line: "AMD EPYC, 2 cores, 23.5 GiB, Linux x86_64"."""
    texts = {"cores": "{} cores", "memory_gib": "{} GiB"}
    return ", ".join(texts.get(key, "{}").format(value) for key, value in values.items())
