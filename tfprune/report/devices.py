"""What devices tell of a run's artifacts: a table with every digit, and one for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tfprune.devices.measuring import device_heading, figures_of, find_figure
from tfprune.report.run import Run

_PLACE = ["variant", "artifact", "device"]


def device_table(run: Run) -> pd.DataFrame:
    """What devices told of each artifact.

    Example:
        >>> device_table(read_run(Path("saved_models/digits")))

    Args:
        run: what `read_run` read.

    Returns:
        One row for each artifact, seed and device: variant, artifact (its format), seed, device,
        estimated (bool), refusal (text), and one column for each figure that some device tells,
        NaN where another does not. Empty where the run has no devices.
    """
    rows = [
        {
            "variant": row["variant"],
            "artifact": row["format"],
            "seed": row["seed"],
            "device": row["device"],
            "estimated": row["estimated"],
            "refusal": row["refusal"],
            **row["figures"],
        }
        for row in run.on_devices
    ]
    rank = {variant: place for place, variant in enumerate(run.record["pipeline"]["variants"])}
    rows.sort(key=lambda row: rank.get(row["variant"], len(rank)))
    return pd.DataFrame(rows)


def device_summary(table: pd.DataFrame) -> pd.DataFrame:
    """A `device_table` for people: means over seeds, each with its share of the first variant's.

    Args:
        table: what `device_table` returned, with at least one row.

    Returns:
        Text columns: variant, artifact, device (an estimate is called so), one for each figure,
        such as "10,520 (49%)": the share of the first variant's in the same format on the same
        device.
    """
    names = figures_of(table)
    groups = dict(list(table.groupby(_PLACE, sort=False)))
    first = table["variant"].iloc[0]
    rows = []
    for (variant, artifact, device), group in groups.items():
        base = None if variant == first else groups.get((first, artifact, device))
        row = {
            "variant": variant,
            "artifact": artifact,
            "device": device_heading(str(device), bool(group["estimated"].any())),
        }
        for name in names:
            whole = None if base is None else base[name].mean(skipna=False)
            row[find_figure(name).column_heading] = _text(name, group[name], whole)
        rows.append(row)
    return pd.DataFrame(rows)


def _text(name: str, values: pd.Series, first: float | None) -> str:
    """A mean with its deviation, and its share of the first variant's mean."""
    # Of all seeds or of none: one that the device refuses is not left out without a word.
    row, mean = find_figure(name), float(values.mean(skipna=False))
    text = row.text(mean, float(values.std()))
    # A share of a share would be read as that share itself.
    if not text or not first or pd.isna(first) or row.is_share:
        return text
    return f"{text} ({mean / first:.0%})"


def device_notes(run: Run) -> list[str]:
    """What a reader must know beside the figures: refusals, notes, and what figures depend on."""
    lines = {f"{title} is left out: {said}": None for title, said in run.left_out.items()}
    for row in run.on_devices:
        where = f"{row['variant']} as {row['format']} on {row['device']}"
        if row["refusal"]:
            lines[f"{where} cannot be measured: {row['refusal']}"] = None
        for note in row.get("notes", []):
            lines[f"{where}: {note}"] = None
    for device, settings in _settings(run).items():
        said = ", ".join(f"{key} {value}" for key, value in settings.items())
        lines[f"{device}: {said}"] = None
    return list(lines)


def _settings(run: Run) -> Mapping[str, Mapping[str, Any]]:
    return {row["device"]: row["settings"] for row in run.on_devices if row.get("settings")}


def section(run: Run) -> dict[str, Any] | None:
    """The part of the page about devices; None where the run has none."""
    table = device_table(run)
    if table.empty:
        return {"rows": [], "notes": device_notes(run)} if run.left_out else None
    summary = device_summary(table)
    names = figures_of(table)
    meanings = [find_figure(name).meaning for name in names]
    return {
        "columns": list(zip(summary.columns, [""] * len(_PLACE) + meanings, strict=True)),
        "rows": summary.to_numpy().tolist(),
        "named": len(_PLACE),
        "notes": device_notes(run),
        "first": str(table["variant"].iloc[0]),
        "estimated": bool(table["estimated"].any()),
    }
