"""The threads of TensorFlow, which belong to the whole process."""

from __future__ import annotations

import contextlib

from tfprune.quiet import quiet


def limit_threads(count: int | None) -> None:
    """Sets how many threads one operator of TensorFlow uses; one operator runs at a time.

    Works until TensorFlow computes for the first time; later it stays as it was, and `threads` of
    a runtime tells what counts.

    Args:
        count: At least 1; None leaves the choice to TensorFlow.
    """
    if count is None:
        return
    with quiet():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(count)
            tf.config.threading.set_inter_op_parallelism_threads(1)
