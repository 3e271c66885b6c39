"""Runs a `.tflite` file with the LiteRT interpreter; TensorFlow is not needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfprune.errors import TfpruneError
from tfprune.measure.interface import Runtime, one_line

# Evaluating is about throughput; latency has its own interpreter with its own threads.
_BATCH_THREADS = min(2, os.cpu_count() or 1)


def read_tflite(path: Path) -> bytes:
    """Reads a `.tflite` file and checks that it is one.

    Args:
        path: The file.

    Raises:
        TfpruneError: It does not carry the TFLite identifier.
    """
    content = path.read_bytes()
    # A flatbuffer's identifier stands behind the 4-byte offset of its root.
    if content[4:8] != b"TFL3":
        raise TfpruneError(f"{path} is no TFLite model: give a .tflite file, or export it again")
    return content


def quantize(x: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Casts real values to a tensor's dtype, by its own quantization parameters.

    Args:
        x: Real values, any shape.
        details: One entry of the interpreter's `get_input_details()`.

    Returns:
        Same shape, the tensor's dtype; values out of its range are clipped, as saturating casts do.
    """
    dtype = np.dtype(details["dtype"])
    if dtype.kind not in "iu":
        return x.astype(dtype)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(dtype)
    real = x.astype(np.float32) / scale if scale else x
    return np.clip(np.rint(real) + zero_point, limits.min, limits.max).astype(dtype)


def dequantize(q: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Turns a tensor's stored values into float32 real values; inverse of `quantize`.

    Args:
        q: Stored values, any shape.
        details: One entry of the interpreter's `get_output_details()`.
    """
    scale, zero_point = details["quantization"]
    if not scale:
        return q.astype(np.float32)
    return (q.astype(np.float32) - zero_point) * np.float32(scale)


class TFLiteRuntime(Runtime):
    """A TFLite model with one input and one output.

    Args:
        path: The file.
        threads: Threads of the single-image call; `predict` uses up to two.

    Raises:
        TfpruneError: The file is damaged, or an operator in it cannot be run here.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.name = path.name
        self.threads = threads
        self._path = path
        self._content = read_tflite(path)
        self._interpreter = self._fresh(_BATCH_THREADS)
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise TfpruneError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs: "
                "give a model with one of each"
            )
        self._in, self._out = inputs[0], outputs[0]
        signature = [int(n) for n in self._in["shape_signature"]]
        batch, *shape = (None if n == -1 else n for n in signature)
        # A file that promises one batch size only may mix images when resized: keep to it.
        self.fixed_batch = batch
        self.input_shape = tuple(shape)
        self._allocated: tuple[int, ...] | None = None
        if None not in shape:
            # Shows at once whether it runs; a free size may not fit the graph until it is set.
            self._allocate(self._interpreter, (batch or 1, *self.input_shape))
        integer = np.dtype(self._in["dtype"]).kind in "iu"
        self.format = "tflite-int8" if integer else "tflite"
        self.output_step = float(self._out["quantization"][0])

    def _fresh(self, threads: int) -> Interpreter:
        try:
            # From memory the interpreter verifies the whole flatbuffer, so that a truncated file
            # raises here and cannot crash the process later.
            return Interpreter(model_content=self._content, num_threads=threads)
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error

    def _allocate(self, interpreter: Interpreter, shape: tuple[int | None, ...]) -> None:
        try:
            interpreter.resize_tensor_input(self._in["index"], shape)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> TfpruneError:
        return TfpruneError(
            f"{self._path} cannot be run by TFLite ({one_line(error)}): export it again"
        )

    def _invoke(self, batch: np.ndarray) -> np.ndarray:
        interpreter = self._interpreter
        if self._allocated != batch.shape:
            self._allocate(interpreter, batch.shape)
            self._allocated = batch.shape
        interpreter.set_tensor(self._in["index"], quantize(batch, self._in))
        try:
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error
        outputs = dequantize(interpreter.get_tensor(self._out["index"]), self._out)
        if len(outputs) != len(batch):
            raise self._failure(ValueError(f"{len(batch)} images gave {len(outputs)} outputs"))
        return outputs

    def _run(self, batch: np.ndarray) -> np.ndarray:
        try:
            return self._invoke(batch)
        except TfpruneError:
            if len(batch) == 1 or self.fixed_batch:
                raise
        # Some graphs hold a reshape to one example and cannot be resized.
        self._interpreter, self._allocated = self._fresh(_BATCH_THREADS), None
        return np.concatenate([self._run(image[None]) for image in batch])

    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        interpreter = self._fresh(self.threads)
        details, output = self._in, self._out["index"]
        self._allocate(interpreter, batch.shape)
        x = quantize(batch, details)

        def call() -> np.ndarray:
            interpreter.set_tensor(details["index"], x)
            interpreter.invoke()
            return interpreter.get_tensor(output)

        return call
