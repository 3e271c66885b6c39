"""What devices of microcontrollers share: the flatbuffer in a file, and what C++ prints."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tfprune.errors import TfpruneError


def flatbuffer(path: Path) -> bytes:
    """The flatbuffer in a `.tflite` file or a C array.

    Raises:
        TfpruneError: it is another kind of file.
    """
    from tfprune.formats import c_array

    if path.suffix == ".cc":
        return c_array.read(path)
    if path.suffix == ".tflite":
        return path.read_bytes()
    raise TfpruneError(
        f"{path.name} is neither a .tflite file nor a C array: export it as tflite-int8 or c-array"
    )


@contextlib.contextmanager
def printed(*descriptors: int) -> Iterator[Callable[[], str]]:
    """Catches what Python and C++ write to some file descriptors; gives a function that reads it.

    Example:
        ```python
        with printed(1, 2) as said:
            library.compile(content)
            said()  # "Warning: ..."
        ```
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        for number in descriptors:
            before = os.dup(number)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, number)
            os.dup2(file.fileno(), number)
        # What Python holds back belongs to the file, too.
        stack.callback(_flush)

        def said() -> str:
            _flush()
            file.seek(0)
            return file.read().decode(errors="replace")

        yield said


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
