"""Finished steps, each in a folder named after everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, read_json, write_json

# Where a step keeps what it resumes from; no part of its result.
SCRATCH = "scratch"


def key(document: Any) -> str:
    """A short name for a JSON document: equal documents, equal names."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def finished(folder: Path, identity: str) -> bool:
    """Whether `folder` holds the finished result of that identity."""
    return (folder / RECORD).is_file() and read_json(folder / RECORD)["identity"] == identity


def finish(folder: Path, identity: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Makes a result once, and gives its record.

    The result is made beside its final place and renamed into it, so a folder under its final
    name is whole. What a killed attempt left is handed to the next one, which may resume from it.

    Args:
        folder: where the result goes.
        identity: the `key` of everything the result depends on.
        make: fills the directory it is given, and returns what to record.

    Returns:
        The record, as stored with the result.

    Raises:
        TfpruneError: the folder cannot be written.
    """
    if not finished(folder, identity):
        partial = folder.with_name(f".{folder.name}-{identity}.partial")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            # A kill may have come between the record and the renaming.
            if not finished(partial, identity):
                write_json(partial / RECORD, {"identity": identity, **make(partial)})
            shutil.rmtree(partial / SCRATCH, ignore_errors=True)
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)
        except OSError as error:
            raise TfpruneError(
                f"{folder} cannot be written ({error.strerror or error}): "
                "give --out a directory you can write to"
            ) from error
    record: dict[str, Any] = read_json(folder / RECORD)
    return record
