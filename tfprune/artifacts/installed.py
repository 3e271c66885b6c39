"""What formats need beyond tfprune's own requirements. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from tfprune.errors import UsageError

EXTRAS = {"onnx": ("tf2onnx", "onnx", "onnxruntime")}


def check_installed(formats: Iterable[str]) -> None:
    """Checks that the optional packages of some formats are there, before anything is made.

    Args:
        formats: names of formats.

    Raises:
        UsageError: One is not.
    """
    for name in formats:
        missing = [each for each in EXTRAS.get(name, ()) if not importlib.util.find_spec(each)]
        if missing:
            raise UsageError(
                f"format {name!r} needs {', '.join(missing)}: pip install 'tfprune[{name}]'"
            )
