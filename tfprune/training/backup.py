"""The file in which `checkpoint` saves a training, as far as it can be read without Keras."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

FILE = "training.npz"
COLUMN = "history/"
"""What the names of the history's columns begin with."""


def epochs_done(directory: Path) -> int:
    """How many epochs of a training are saved in a directory; 0 where there are none."""
    path = directory / FILE
    if not path.exists():
        return 0
    try:
        with np.load(path) as archive:
            return len(archive[f"{COLUMN}epoch"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return 0
