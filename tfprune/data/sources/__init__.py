"""Where data come from: one module a kind of source.

Importing it loads no TensorFlow, so that pipeline files are checked without it.
"""

from __future__ import annotations

import importlib
import pkgutil

from tfprune.data.sources.base import KINDS, Opened, Request, Source
from tfprune.errors import UsageError

__all__ = ["KINDS", "Opened", "Request", "Source", "find_source", "meanings"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def find_source(name: str, request: Request | None = None) -> Source:
    """The source of a name; nothing is read yet.

    Example:
        ```python
        find_source("digits").open().origin  # "digits, embedded in scikit-learn 1.9.0"
        ```

    Args:
        name: as users write it: see `meanings`.
        request: how the data set is asked for.

    Raises:
        UsageError: no kind of source takes the name.
    """
    if not name.strip():
        raise UsageError(f"the data set has no name: give {'; '.join(meanings())}")
    for kind in sorted(KINDS, key=lambda kind: kind.order):
        if kind.takes(name):
            return kind(name, request or Request())
    raise UsageError(f"{name!r} is not a data set: give {'; '.join(meanings())}")


def meanings() -> list[str]:
    """How names of data sets are written, one phrase for each kind of source."""
    return [kind.meaning for kind in sorted(KINDS, key=lambda kind: kind.order)]
