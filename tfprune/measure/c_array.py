"""Reads the TFLite file that C++ source for a microcontroller holds."""

from __future__ import annotations

import re
from pathlib import Path

from tfprune.errors import TfpruneError

_ARRAY = re.compile(r"alignas\(16\) const unsigned char \w+\[\] = \{([^}]*)\};")


def c_array(path: Path) -> bytes:
    """The bytes of the one array in a `.cc` that tfprune exported.

    Args:
        path: The `.cc`.

    Raises:
        TfpruneError: It holds no such array.
    """
    try:
        (body,) = _ARRAY.findall(path.read_text("utf-8"))
        return bytes(int(number, 16) for number in body.replace(",", " ").split())
    except ValueError as error:
        raise TfpruneError(f"{path} holds no C array of a model: export it again") from error
