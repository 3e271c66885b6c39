"""Which artifacts a directory or a run holds, and what is known of each.

`artifacts.json` lists those of one directory, `manifest.json` all of a run. Both hold the card of
every artifact: formats, shapes, quantization, hashes, sizes, versions and agreement.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfprune.artifacts.artifact import Artifact
from tfprune.errors import TfpruneError
from tfprune.files import read_json, write_json

MANIFEST = "artifacts.json"
RUN_MANIFEST = "manifest.json"


def write_manifest(directory: str | os.PathLike[str], artifacts: Iterable[Artifact]) -> Path:
    """Writes `artifacts.json`; whoever reads meanwhile sees the old or the new one, never half.

    Args:
        directory: Where the artifacts lie.
        artifacts: All that the file shall list.

    Returns:
        The file's path.

    Raises:
        TfpruneError: The directory cannot be written, or an artifact lies elsewhere.
    """
    directory = Path(directory)
    listed = [artifact.to_dict(directory) for artifact in artifacts]
    return write_json(directory / MANIFEST, {"artifacts": listed})


def read_manifest(directory: str | os.PathLike[str], name: str = MANIFEST) -> list[Artifact]:
    """Reads `artifacts.json`, or another list of the same form.

    Args:
        directory: Where it lies.
        name: `"artifacts.json"` or `"manifest.json"`.

    Raises:
        TfpruneError: There is none, it is damaged, or it names a file outside its directory.
    """
    directory = Path(directory)
    path = directory / name
    try:
        document = read_json(path)
        return [Artifact.from_dict(values, directory) for values in document["artifacts"]]
    # A list that nests too deeply is nobody's honest mistake, yet one line all the same.
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TfpruneError(f"{path} is no artifact list, or is damaged: export again") from error


def write_run_manifest(
    run: str | os.PathLike[str], accuracies: dict[str, float] | None = None
) -> Path:
    """Writes `manifest.json`: every artifact of a run, from the `artifacts.json` of its variants.

    Args:
        run: The run's directory, with artifacts in `VARIANT/seed-N/`.
        accuracies: Share of test images classified correctly, 0 to 1, by the artifact's path
            relative to the run, such as `"dense/seed-0/model.tflite"`.

    Returns:
        The file's path.

    Raises:
        TfpruneError: A list is damaged, or the file cannot be written.
    """
    run = Path(run)
    known = accuracies or {}
    listed: list[dict[str, Any]] = []
    for found in sorted(run.glob(f"*/seed-*/{MANIFEST}")):
        for artifact in read_manifest(found.parent):
            values = artifact.to_dict(run)
            values["accuracy"] = known.get(values["path"], artifact.accuracy)
            listed.append(values)
    return write_json(run / RUN_MANIFEST, {"run": run.resolve().name, "artifacts": listed})
