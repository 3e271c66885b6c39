"""Keeps TensorFlow's chatter off stdout and stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Python's and C++'s stdout and stderr, and warnings.

    The converter prints "Saved artifact at…" and logs dozens of lines from C++, which no Python
    setting reaches. What matters arrives as an exception. Other threads are silent meanwhile too.
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
        # Not sys.stderr: a logger that is made meanwhile would keep the stream beyond its end.
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield


def start_keras() -> None:
    """Loads Keras and wakes its devices, in silence.

    TensorFlow's C++ prints a dozen lines about instruction sets and missing GPUs at import and at
    the first operation, before its log level counts.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet():
        import keras

        keras.ops.zeros(1)
