"""Unpacks a `.tar.gz` that somebody else may have made."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.measure.interface import one_line


def unpack(archive: Path, directory: Path) -> None:
    """Unpacks an archive, refusing members that would land outside the directory.

    Args:
        archive: A `.tar.gz` file.
        directory: An existing, empty directory.

    Raises:
        TfpruneError: It is no such archive, is cut short, or holds links, devices or paths that
            lead out of the directory (PEP 706's "data" filter).
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(directory, filter="data")
    except tarfile.FilterError as error:
        raise TfpruneError(
            f"{archive} holds an unsafe member ({one_line(error)}): do not trust this file"
        ) from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise TfpruneError(
            f"{archive} cannot be unpacked ({one_line(error)}): export or copy it again"
        ) from error


def saved_model_root(directory: Path) -> Path:
    """The one directory at or below `directory` that holds a SavedModel.

    Args:
        directory: Where to look.

    Raises:
        TfpruneError: There is none, or more than one.
    """
    roots = sorted(found.parent for found in directory.rglob("saved_model.pb"))
    if len(roots) != 1:
        raise TfpruneError(
            f"{len(roots)} SavedModels found, one expected: "
            "give a directory or archive with exactly one saved_model.pb"
        )
    return roots[0]
