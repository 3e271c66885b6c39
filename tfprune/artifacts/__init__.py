"""Exports models as files that were loaded, run and compared before they count.

Importing it loads no TensorFlow: each name loads its module at first use, so that files can be
verified where nothing but TFLite is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfprune.artifacts.artifact import Artifact as Artifact
    from tfprune.artifacts.exporting import export as export
    from tfprune.artifacts.formats import FORMATS as FORMATS
    from tfprune.artifacts.manifest import read_manifest as read_manifest
    from tfprune.artifacts.manifest import write_manifest as write_manifest
    from tfprune.artifacts.manifest import write_run_manifest as write_run_manifest
    from tfprune.artifacts.verifying import verify as verify

_HOME = {
    "FORMATS": "formats",
    "Artifact": "artifact",
    "export": "exporting",
    "read_manifest": "manifest",
    "verify": "verifying",
    "write_manifest": "manifest",
    "write_run_manifest": "manifest",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tfprune.artifacts' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tfprune.artifacts.{_HOME[name]}"), name)
    globals()[name] = value
    return value
