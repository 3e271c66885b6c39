"""Keeps messages of TensorFlow off stdout and stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences stdout and stderr of Python and C++, and warnings, within the context.

    Example:
        ```python
        with quiet():
            content = converter.convert()
        ```

    TensorFlow's converter prints "Saved artifact at…", and its C++ code logs dozens of lines, which
    no setting of Python suppresses. Errors are still raised. Other threads are silenced too.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        null = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(null.fileno(), descriptor)
        # sys.stderr stays: a logger created in the context would keep the closed stream.
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield


def start_keras() -> None:
    """Imports Keras and runs a first operation, without messages.

    Example:
        ```python
        start_keras()
        import keras
        ```

    At import and at the first operation, TensorFlow's C++ code prints a dozen lines about
    instruction sets and missing GPUs, regardless of its log level.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet():
        import keras

        keras.ops.zeros(1)
