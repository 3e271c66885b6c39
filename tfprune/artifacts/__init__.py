"""Exports models as files that were loaded, run and compared before they count."""

from tfprune.artifacts.artifact import Artifact
from tfprune.artifacts.exporting import export
from tfprune.artifacts.formats import FORMATS
from tfprune.artifacts.manifest import read_manifest, write_manifest

__all__ = ["FORMATS", "Artifact", "export", "read_manifest", "write_manifest"]
