"""`artifacts.json`: which artifacts a directory holds, and what was measured of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tfprune.artifacts.artifact import Artifact
from tfprune.errors import TfpruneError
from tfprune.files import read_json, write_json

MANIFEST = "artifacts.json"


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


def read_manifest(directory: str | os.PathLike[str]) -> list[Artifact]:
    """Reads `artifacts.json`.

    Args:
        directory: Where it lies.

    Raises:
        TfpruneError: There is none, or it is damaged.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    document = read_json(path)
    try:
        return [Artifact.from_dict(values, directory) for values in document["artifacts"]]
    except (KeyError, TypeError) as error:
        raise TfpruneError(f"{path} is no artifact list, or is damaged: export again") from error
