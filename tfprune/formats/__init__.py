"""The formats that models are exported to: how each is written, opened, run and read.

Each format has a module; `registry` has a row for each. Importing this package loads neither
TensorFlow nor Keras: a format's module is imported when a file of it is written or opened.
"""

from tfprune.formats.registry import (
    FILE_TYPES,
    FORMATS,
    FileType,
    Format,
    check_installed,
    file_type,
    load,
    open_file,
)
from tfprune.formats.runtime import Feeds, Memory, Runtime, StoredWeights, Tensor, stored

__all__ = [
    "FILE_TYPES",
    "FORMATS",
    "Feeds",
    "FileType",
    "Format",
    "Memory",
    "Runtime",
    "StoredWeights",
    "Tensor",
    "check_installed",
    "file_type",
    "load",
    "open_file",
    "stored",
]
