"""Files measured on devices: one row for each file and device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfprune.devices.base import Device
from tfprune.files import existing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("artifact", "device", "estimated", "refusal", "notes", "settings")
"""The columns that are not figures."""


def measure_on(
    files: Sequence[str | os.PathLike[str]], devices: Sequence[Device], *, layers: bool = False
) -> pd.DataFrame:
    """Measures every file on every device.

    Example:
        ```python
        measure_on(["net.int8.tflite"], [find_device("ethos-u55-128")])
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
