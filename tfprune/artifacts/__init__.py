"""Exports models as files that were loaded, run and compared before they count.

Importing it loads no TensorFlow: each name loads its module at first use, so that files can be
verified where nothing but TFLite is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfprune.artifacts.card import Artifact as Artifact
    from tfprune.artifacts.card import read_manifest as read_manifest
    from tfprune.artifacts.card import write_manifest as write_manifest
    from tfprune.artifacts.card import write_run_manifest as write_run_manifest
    from tfprune.artifacts.exporting import export as export
    from tfprune.artifacts.verifying import verify as verify

_HOME = {
    "Artifact": "card",
    "export": "exporting",
    "read_manifest": "card",
    "verify": "verifying",
    "write_manifest": "card",
    "write_run_manifest": "card",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tfprune.artifacts' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tfprune.artifacts.{_HOME[name]}"), name)
    globals()[name] = value
    return value
