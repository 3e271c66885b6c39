"""Sentences of the report: changes, steps, removals, and where a run comes from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from tfprune import figures
from tfprune.report.run import Run, is_empty


def describe_change(points: float) -> str:
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
    # From no decimals to two.
    digits = 0 if ratio >= 0.9995 or ratio == 0 else 1 if ratio >= 0.1 else 2
    return f"{ratio:,.{digits}%}"


def describe_against(row: Mapping[Any, Any], first: Mapping[Any, Any]) -> str:
    """The change of a variant against the first one, in the same format.

    Args:
        row: of the means; its accuracy and its costs (`tfprune.figures.COSTS`) are read.
        first: the first variant's.
    """
    text = describe_change(100 * (row["accuracy"] - first["accuracy"]))
    shares = [
        f"{percent(row[cost.name] / first[cost.name])} of the {cost.noun}"
        for cost in map(figures.figure, figures.COSTS)
        if not (pd.isna(row[cost.name]) or pd.isna(first[cost.name])) and first[cost.name] > 0
    ]
    if len(shares) > 1:
        shares[-1] = f"and {shares[-1]}"
    return text + (" at " + (", " if len(shares) > 2 else " ").join(shares) if shares else "")


def describe_step(specification: Mapping[str, Any], given: Collection[str] | None = None) -> str:
    """What a step does, with every parameter that it was given.

    Args:
        specification: as the step's record holds it.
        given: the keys that were set; those that are not empty, if not given. A key that the
            sentence of its kind does not use is listed behind it.
    """
    describe = _KINDS.get(str(specification.get("kind")), _listed)
    values = _ReadKeys(specification)
    try:
        sentence = describe(values)
    except (KeyError, TypeError, ValueError):
        # A record of another version: its keys are listed as they are.
        return _listed(specification)
    if given is None:
        given = [key for key, value in specification.items() if not is_empty(value)]
    left = {key: specification[key] for key in given if key in specification}
    left = {key: value for key, value in left.items() if key not in values.read and key != "kind"}
    return sentence + (f" ({key_values(left)})" if left else "")


class _ReadKeys(dict[str, Any]):
    """A specification that notes which of its keys a sentence used."""

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


def _trains(step: Mapping[str, Any]) -> str:
    parts = [
        f"trains {step['epochs']} epochs at learning rate {step['learning_rate']:g}",
        f"{step['optimizer']}, {step['schedule']} schedule, batches of {step['batch_size']}",
    ]
    if step.get("warmup_epochs"):
        parts.append(f"the first {step['warmup_epochs']:g} to warm up")
    if step.get("weight_decay"):
        parts.append(f"weight decay {step['weight_decay']:g}")
    if step.get("augment"):
        parts.append(f"augmented by {' and '.join(step['augment'])}")
    if step.get("teacher"):
        parts.append(f"taught by {step['teacher']} for {step['teacher_weight']:.0%} of the loss")
    return ", ".join(parts)


def _prunes(step: Mapping[str, Any]) -> str:
    where = "all layers together" if step["scope"] == "global" else "every layer"
    return (
        f"sets {100 * step['sparsity']:.4g}% of the weights of {where} to zero, from "
        f"{step['begin']:.0%} to {step['end']:.0%} of its training; {_trains(step)}"
    )


def _learns(step: Mapping[str, Any]) -> str:
    over = " over residual branches" if step.get("groups") == "depth" else ""
    parts = [f"group lasso of strength {step['strength']:g}{over}"] if step["strength"] else []
    if any(step.get(key) is not None for key, _ in _SHARES):
        parts.append(
            f"shrinks {_until(step)} to zero, the least important by {step['importance']} first, "
            f"from {step['begin']:.0%} to {step['end']:.0%} of its training"
        )
    return f"{', and '.join(parts)}; {_trains(step)}"


def _slims(step: Mapping[str, Any]) -> str:
    target = "all channels that contribute nothing" if step["dead"] else _until(step)
    rounding = f", in multiples of {step['round_to']}" if step["round_to"] > 1 else ""
    return f"removes {target}, the least important by {step['importance']} first{rounding}"


_SHARES = (
    ("filters", "filters are"),
    ("macs", "MACs are"),
    ("params", "parameters are"),
    ("latency", "measured latency is"),
)


def _until(step: Mapping[str, Any]) -> str:
    for key, title in _SHARES:
        if step.get(key) is not None:
            return f"channels until {100 * step[key]:.4g}% of the {title} left"
    if step.get("milliseconds") is not None:
        return f"channels until one image takes {step['milliseconds']:g} ms"
    return f"channels until the file has {step['bytes']:,} bytes"


def _listed(step: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{key} {value}" for key, value in step.items() if key != "kind" and not is_empty(value)
    )
    return f"{step.get('kind', 'step')}: {values}" if values else str(step.get("kind", "step"))


def _prunes_once(step: Mapping[str, Any]) -> str:
    where = "all layers together" if step["scope"] == "global" else "every layer"
    which = "drawn by chance" if step["select"] == "random" else "the smallest"
    sentence = f"sets {100 * step['share']:.4g}% of the living weights of {where} to zero, {which}"
    own = ", ".join(f"{100 * share:.4g}% in {layer}" for layer, share in step["layers"].items())
    return f"{sentence}; {own}" if own else sentence


def _rounds(step: Mapping[str, Any]) -> str:
    return f"rounds the weights of each output channel to {2 ** step['bits'] - 1} values"


def _retrains(step: Mapping[str, Any]) -> str:
    start = {
        "finetune": "goes on from the weights as they are",
        "lr": f"keeps the weights and replays the learning rate from epoch {step['epoch']}",
        "weights": f"puts the living weights back to epoch {step['epoch']} and replays from there",
        "reinit": "draws the living weights anew",
        "random": "draws anew which weights of each tensor live, and the weights",
    }[step["rewind"]]
    return f"{start}, its zeros held; {_trains(step)}"


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


def describe_removal(record: Mapping[str, Any]) -> str:
    """What a step removed and how accurate the model was, or the empty text.

    Args:
        record: the step's.
    """
    gone = record.get("removed")
    if not isinstance(gone, Mapping):
        return ""
    count = sum(map(int, gone.values()))
    sentence = f"{count:,} channels of {len(gone)} layers went"
    accuracies = record.get("validation_accuracy")
    if isinstance(accuracies, Mapping) and accuracies:
        steps = ", ".join(
            f"{value:.1%} {_WHEN.get(name, name)}" for name, value in accuracies.items()
        )
        sentence += f"; validation accuracy {steps}"
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
