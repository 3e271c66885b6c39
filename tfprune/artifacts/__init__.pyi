from .card import Artifact as Artifact
from .card import read_manifest as read_manifest
from .card import write_manifest as write_manifest
from .card import write_run_manifest as write_run_manifest
from .exporting import export as export
from .verifying import verify as verify
