"""Files measured on devices: one row for each file and device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfprune.devices.base import Device
from tfprune.figures import Figure, Number, figure
from tfprune.files import existing

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("artifact", "device", "estimated", "refusal", "notes", "settings", "layers")
# Of a run, where the artifact is a format.
_OF_A_RUN = ("variant", "seed")


def measure_on(
    files: Sequence[str | os.PathLike[str]], devices: Sequence[Device], *, layers: bool = False
) -> pd.DataFrame:
    """Measures every file on every device.

    Example:
        ```python
        measure_on(["net.int8.tflite"], [find_device("cpu", threads=2)])
        ```

    Args:
        files: artifacts of any format; one that is named twice counts once.
        devices: from `find_device`; all are checked before the first one measures.
        layers: whether to keep the figures of single operators.

    Returns:
        One row for each file and device, with columns
        artifact, device: the path and the name as they were given.
        estimated: whether the figures come from a compiler or a model of the device.
        refusal: why the file does not run there; empty where it does.
        notes: a list of sentences that belong to the figures.
        settings: a dict of what the figures depend on beside the file.
        layers: with `layers`, a DataFrame of the operators, or None.
        And one column for each figure that some device tells, NaN where another does not: their
        names are rows of `tfprune.figures`, or those that a command gives.

    Raises:
        UsageError: what a device needs is not installed.
        TfpruneError: a file is missing, or a device fails.
    """
    import pandas as pd

    paths = {os.fspath(name): existing(Path(name)) for name in files}
    for device in devices:
        device.check()
    rows = []
    for device in devices:
        for name, found in zip(paths, device.measure([*paths.values()]), strict=True):
            row = {
                "artifact": name,
                "device": device.name,
                "estimated": device.estimated,
                "refusal": found.refusal,
                "notes": list(found.notes),
                "settings": device.settings(),
            }
            rows.append({**row, **({"layers": found.layers} if layers else {}), **found.figures})
    return pd.DataFrame(rows)


def figures_of(table: pd.DataFrame) -> list[str]:
    """The names of the figures of a table that `measure_on` or `device_table` made."""
    return [str(name) for name in table if name not in _COLUMNS + _OF_A_RUN]


def device_heading(name: str, estimated: bool) -> str:
    """What tables for people call a device: whether its figures are estimates is a part of it."""
    return f"{name}, estimated" if estimated else name


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `measure_on` for people: headings and units, and what is an estimate.

    Args:
        table: what `measure_on` returned.

    Returns:
        Text columns: artifact, device, one for each figure; empty where a device does not tell it.
    """
    import pandas as pd

    columns: dict[str, list[str]] = {
        "artifact": list(table["artifact"]),
        "device": [
            device_heading(name, estimated)
            for name, estimated in zip(table["device"], table["estimated"], strict=True)
        ],
    }
    for name in figures_of(table):
        row = find_figure(name)
        columns[row.column_heading] = [row.text(value) for value in table[name]]
    return pd.DataFrame(columns)


def entries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `measure_on` as plain values: the figures that are known under `figures`."""
    found = []
    for row in table.to_dict("records"):
        known = {name: row[name] for name in figures_of(table) if row[name] == row[name]}
        entry = {name: row[name] for name in _COLUMNS if name in row and name != "layers"}
        if row.get("layers") is not None:
            entry["layers"] = row["layers"].to_dict("records")
        found.append({**entry, "figures": known})
    return found


def find_figure(name: str) -> Figure:
    """The row of a figure that a device tells; a plain one for a name that only a command knows."""
    try:
        return figure(name)
    except KeyError:
        return Figure(name, name, Number(digits=None), "device", "as the command tells it")
