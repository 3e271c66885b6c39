"""What LiteRT answers on this computer, which other runtimes are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError, one_line


def litert(path: Path, content: bytes) -> Any:
    """LiteRT's interpreter of a file, for the batch that it stores: 1 where it is open.

    Call it in a sandbox: a broken file may crash Python.

    Raises:
        TfpruneError: LiteRT cannot run it.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        found = Interpreter(model_content=content)
        found.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise TfpruneError(
            f"{path} cannot be run by LiteRT ({one_line(error)}): export it again"
        ) from error
    return found


def feed(interpreter: Any, seed: int) -> list[np.ndarray]:
    """Gives an interpreter of LiteRT an example of random numbers, and returns its arrays."""
    from tfprune.formats.tflite_micro import any_input

    rng = np.random.default_rng(seed)
    arrays = []
    for details in interpreter.get_input_details():
        quantized = bool(details["quantization"][0])
        arrays.append(any_input(details["dtype"], details["shape"], quantized, rng))
        interpreter.set_tensor(details["index"], arrays[-1])
    return arrays


def largest(arrays: Sequence[np.ndarray]) -> float:
    """What distances of floats are divided by: the largest absolute value, and never zero."""
    return max(max(float(np.abs(each).max(initial=0.0)) for each in arrays), 1e-6)
