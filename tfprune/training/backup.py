"""The part of a saved training that can be read without Keras; `checkpoint` writes the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

FILE = "training.npz"
COLUMN = "history/"
"""The prefix of the arrays that hold columns of the history."""


def epochs_done(directory: Path) -> int:
    """The number of epochs of a training that are saved in a directory.

    Example:
        ```python
        epochs_done(Path("runs/backup"))  # 0 if the directory holds no training
        ```
    """
    path = directory / FILE
    if not path.exists():
        return 0
    try:
        with np.load(path) as archive:
            return len(archive[f"{COLUMN}epoch"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return 0
