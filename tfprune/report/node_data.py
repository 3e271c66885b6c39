"""Figures of single operators for Model Explorer, which colours the graph of a file by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.errors import UsageError
from tfprune.files import write_json
from tfprune.formats.tflite_file import Node, TFLiteFile

_SUFFIX = ".tflite"
# From little to much, as Model Explorer takes stops of a gradient.
_GRADIENT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#f4a259"}]


def tflite_files(files: Sequence[Path]) -> list[Path]:
    """Those files that node data can be written for, each once."""
    return [file for file in dict.fromkeys(files) if file.suffix == _SUFFIX]


def check_files(files: Sequence[Path], baseline: Path | None = None) -> None:
    """Checks files by their names, before anything is measured.

    Args:
        files: of any format; node data are written for the `.tflite` files among them.
        baseline: see `write_node_data`.

    Raises:
        UsageError: none is a `.tflite` file, two would be written to the same place, or the
            baseline is another kind of file.
    """
    wanted = tflite_files(files)
    if not wanted:
        raise UsageError("node data are for .tflite files, and none is given: give one")
    if baseline is not None:
        _check_suffix(baseline)
    stems = [file.stem for file in wanted]
    for file in wanted:
        if stems.count(file.stem) > 1:
            raise UsageError(
                f"two files are called {file.name}, and their node data would be too: give them "
                "one at a time, with a folder for each"
            )


def _check_suffix(file: Path) -> None:
    if file.suffix != _SUFFIX:
        raise UsageError(f"{file} is not a .tflite file: node data are for those only")


def write_node_data(
    file: Path,
    folder: Path,
    *,
    baseline: Path | None = None,
    layers: Mapping[str, pd.DataFrame] | None = None,
) -> list[Path]:
    """Writes what is known of each operator of a TFLite file, one JSON file a figure.

    Example:
        ```python
        write_node_data(Path("slim.tflite"), Path("nodes"), baseline=Path("dense.tflite"))
        ```

    In Model Explorer, open the `.tflite` file and load these files as custom node data.

    Args:
        file: the `.tflite` file.
        folder: where to; it is made if it is missing.
        baseline: the file before pruning: then the channels that an operator has lost are written
            too, where both files have an operator of that name.
        layers: by the name of a device, the operators that `measure_on` told of this file.

    Returns:
        The paths: `sparsity`, `channels-removed` with a baseline, and `DEVICE-FIGURE` for each
        figure of a device, each with the name of the file before it.

    Raises:
        UsageError: a file is not a `.tflite` file.
        TfpruneError: the folder cannot be written.

    Source:
        https://github.com/google-ai-edge/model-explorer/wiki describes the format of node data.
    """
    nodes = _nodes(file)
    figures = {
        "sparsity": {each.name: 1 - each.nonzero / each.weights for each in nodes if each.weights}
    }
    if baseline is not None:
        before = {each.name: each.channels for each in _nodes(baseline)}
        figures["channels-removed"] = {
            each.name: float(before[each.name] - each.channels)
            for each in nodes
            if each.name in before
        }
    known = {each.name for each in nodes}
    for device, table in (layers or {}).items():
        for name in table.select_dtypes("number"):
            values = zip(table["layer"], table[name], strict=True)
            figures[f"{device}-{name}"] = {
                layer: float(value) for layer, value in values if layer in known and value == value
            }
    return [
        write_json(folder / f"{file.stem}.{figure}.json", _document(figure, values))
        for figure, values in figures.items()
        if values
    ]


def _document(figure: str, values: Mapping[str, float]) -> dict[str, Any]:
    return {
        "name": figure,
        "results": {name: {"value": value} for name, value in values.items()},
        "gradient": _GRADIENT,
    }


def _nodes(file: Path) -> list[Node]:
    from tfprune.formats import load

    _check_suffix(file)
    # The interpreter verifies what is read next.
    load(file)
    return TFLiteFile(file.read_bytes()).nodes()
