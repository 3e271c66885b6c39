"""`artifacts.json`: which artifacts a directory holds, and what was measured of them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tfprune.artifacts.artifact import Artifact
from tfprune.errors import TfpruneError

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
    path = directory / MANIFEST
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".partial-") as partial:
            new = Path(partial) / MANIFEST
            new.write_text(json.dumps({"artifacts": listed}, indent=2) + "\n")
            new.replace(path)
    except OSError as error:
        raise TfpruneError(
            f"{path} cannot be written ({error.strerror}): give a directory you can write to"
        ) from error
    return path


def read_manifest(directory: str | os.PathLike[str]) -> list[Artifact]:
    """Reads `artifacts.json`.

    Args:
        directory: Where it lies.

    Raises:
        TfpruneError: There is none, or it is damaged.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    try:
        listed = json.loads(path.read_text())["artifacts"]
        return [Artifact.from_dict(values, directory) for values in listed]
    except OSError as error:
        raise TfpruneError(
            f"{path} cannot be read ({error.strerror}): export into this directory first"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TfpruneError(f"{path} is no artifact list, or is damaged: export again") from error
