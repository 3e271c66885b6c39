"""What a run found and how each variant was made, in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from tfprune.report.run import is_empty


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


def step(specification: Mapping[str, Any], given: Collection[str] | None = None) -> str:
    """What a step does, with every parameter that it was given.

    Args:
        specification: as the step's record holds it.
        given: the keys that were set; those that are not empty, if not given. One that the
            sentence for its kind does not speak of is listed behind it.
    """
    said, it = _KINDS.get(str(specification.get("kind")), _listed), _Read(specification)
    try:
        sentence = said(it)
    except (KeyError, TypeError, ValueError):
        # A kind that came to mean something else is still told, if less well.
        return _listed(specification)
    if given is None:
        given = [key for key, value in specification.items() if not is_empty(value)]
    left = {key: specification[key] for key in given if key in specification}
    left = {key: value for key, value in left.items() if key not in it.read and key != "kind"}
    return sentence + (f" ({options(left)})" if left else "")


class _Read(dict[str, Any]):
    """A specification that notes which of its keys a sentence spoke of."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def items(self) -> Any:
        self.read |= set(self)
        return super().items()


def _trains(it: Mapping[str, Any]) -> str:
    parts = [
        f"trains {it['epochs']} epochs at learning rate {it['learning_rate']:g}",
        f"{it['optimizer']}, {it['schedule']} schedule, batches of {it['batch_size']}",
    ]
    if it.get("warmup_epochs"):
        parts.append(f"the first {it['warmup_epochs']:g} to warm up")
    if it.get("weight_decay"):
        parts.append(f"weight decay {it['weight_decay']:g}")
    if it.get("augment"):
        parts.append(f"augmented by {' and '.join(it['augment'])}")
    if it.get("teacher"):
        parts.append(f"taught by {it['teacher']} for {it['teacher_weight']:.0%} of the loss")
    return ", ".join(parts)


def _prunes(it: Mapping[str, Any]) -> str:
    where = "all layers together" if it["scope"] == "global" else "every layer"
    return (
        f"sets {100 * it['sparsity']:.4g}% of the weights of {where} to zero, from "
        f"{it['begin']:.0%} to {it['end']:.0%} of its training; {_trains(it)}"
    )


def _learns(it: Mapping[str, Any]) -> str:
    over = " over residual branches" if it.get("groups") == "depth" else ""
    parts = [f"group lasso of strength {it['strength']:g}{over}"] if it["strength"] else []
    if any(it.get(key) is not None for key, _ in _SHARES):
        parts.append(
            f"shrinks {_until(it)} to zero, the least important by {it['importance']} first, from "
            f"{it['begin']:.0%} to {it['end']:.0%} of its training"
        )
    return f"{', and '.join(parts)}; {_trains(it)}"


def _slims(it: Mapping[str, Any]) -> str:
    target = "all channels that contribute nothing" if it["dead"] else _until(it)
    rounding = f", in multiples of {it['round_to']}" if it["round_to"] > 1 else ""
    return f"removes {target}, the least important by {it['importance']} first{rounding}"


_SHARES = (
    ("filters", "filters are"),
    ("macs", "MACs are"),
    ("params", "parameters are"),
    ("latency", "measured latency is"),
)


def _until(it: Mapping[str, Any]) -> str:
    for key, title in _SHARES:
        if it.get(key) is not None:
            return f"channels until {100 * it[key]:.4g}% of the {title} left"
    if it.get("milliseconds") is not None:
        return f"channels until one image takes {it['milliseconds']:g} ms"
    return f"channels until the file has {it['bytes']:,} bytes"


def _listed(it: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{key} {value}" for key, value in it.items() if key != "kind" and not is_empty(value)
    )
    return f"{it.get('kind', 'step')}: {values}" if values else str(it.get("kind", "step"))


def _prunes_once(it: Mapping[str, Any]) -> str:
    where = "all layers together" if it["scope"] == "global" else "every layer"
    which = "drawn by chance" if it["select"] == "random" else "the smallest"
    said = f"sets {100 * it['share']:.4g}% of the living weights of {where} to zero, {which}"
    own = ", ".join(f"{100 * share:.4g}% in {layer}" for layer, share in it["layers"].items())
    return f"{said}; {own}" if own else said


def _rounds(it: Mapping[str, Any]) -> str:
    return f"rounds the weights of each output channel to {2 ** it['bits'] - 1} values"


def _retrains(it: Mapping[str, Any]) -> str:
    start = {
        "finetune": "goes on from the weights as they are",
        "lr": f"keeps the weights and replays the learning rate from epoch {it['epoch']}",
        "weights": f"puts the living weights back to epoch {it['epoch']} and replays from there",
        "reinit": "draws the living weights anew",
        "random": "draws anew which weights of each tensor live, and the weights",
    }[it["rewind"]]
    return f"{start}, its zeros held; {_trains(it)}"


# A kind of step that is not here lists its values.
_KINDS = {
    "train": _trains,
    "prune": _prunes,
    "prune-once": _prunes_once,
    "round": _rounds,
    "learn": _learns,
    "slim": _slims,
    "retrain": _retrains,
}


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
