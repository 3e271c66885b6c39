"""Runs an `.onnx` file with ONNX Runtime; TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.measure.interface import Runner, Runtime
from tfprune.measure.stored import StoredWeights

try:
    import onnxruntime

    from tfprune.measure.onnx_file import OnnxFile
except ImportError:
    raise UsageError("ONNX files need onnxruntime: pip install 'tfprune[onnx]'") from None


def open_session(path: Path, threads: int = 0) -> Any:
    """An inference session on the CPU.

    Args:
        path: An `.onnx` file.
        threads: Threads of one call; 0 means that ONNX Runtime chooses.

    Raises:
        TfpruneError: The file is damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Errors are raised as well; its log would stand between ours.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # Its errors share no class but Exception.
    except Exception as error:
        raise TfpruneError(
            f"{path} cannot be loaded as ONNX ({one_line(error)}): export it again"
        ) from error


def end_dtype(end: Any) -> str:
    """NumPy's name for the dtype of an input or output of a session.

    Args:
        end: One of `get_inputs()` or `get_outputs()`.
    """
    # ONNX writes "tensor(float)", and all but its floats as NumPy does.
    word = end.type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(word, word)


class OnnxRuntime(Runtime):
    """An ONNX model with one input and one output.

    Args:
        path: An `.onnx` file.
        threads: Threads of the single-image call; `predict` uses as many as there are cores.

    Raises:
        TfpruneError: The file is damaged, or has more than one input or output.
    """

    format = "onnx"

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.name = path.name
        self.threads = threads
        self._path = path
        self._session = open_session(path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise TfpruneError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs: "
                "give a model with one of each"
            )
        (end,) = inputs
        if not end.shape:
            raise TfpruneError(f"{path} does not say its input's shape: export it with one")
        self._input, self._dtype = end.name, end_dtype(end)
        # A size that is free has a name, or None.
        batch, *shape = (size if isinstance(size, int) else None for size in end.shape)
        self.fixed_batch = batch
        self.input_shape = tuple(shape)
        self._file = OnnxFile(path)

    def weights(self) -> Iterator[StoredWeights]:
        """The graph's initializers of float numbers."""
        return self._file.constants()

    def macs(self) -> int | None:
        """Counted in the graph's operators."""
        return self._file.macs()

    def _runners(self, images: np.ndarray, batch_size: int) -> tuple[int, Sequence[Runner]]:
        # ONNX Runtime has threads of its own.
        return self.fixed_batch or batch_size, [self._run]

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self._call(self._session, batch).astype(np.float32)

    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        session = open_session(self._path, self.threads)
        x = batch.astype(self._dtype)
        return lambda: self._call(session, x)

    def _call(self, session: Any, batch: np.ndarray) -> np.ndarray:
        try:
            (outputs,) = session.run(None, {self._input: batch.astype(self._dtype, copy=False)})
        except Exception as error:
            raise TfpruneError(
                f"{self._path} cannot be run by ONNX Runtime ({one_line(error)}): export it again"
            ) from error
        return outputs
