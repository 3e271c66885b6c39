"""Starts TensorFlow without its notices."""

from __future__ import annotations

import os


def start_keras() -> None:
    """Loads Keras and wakes its devices, in silence.

    TensorFlow's C++ prints a dozen lines about instruction sets and missing GPUs at import and at
    the first operation, before its log level counts.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tfprune.quiet import quiet

    with quiet():
        import keras

        keras.ops.zeros(1)
