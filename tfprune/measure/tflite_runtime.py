"""Runs a `.tflite` file with the LiteRT interpreter; TensorFlow is not needed."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfprune.errors import TfpruneError, one_line
from tfprune.measure.interface import Runner, Runtime
from tfprune.measure.stored import StoredWeights
from tfprune.measure.tflite_file import TFLiteFile, read_tflite

__all__ = ["TFLiteRuntime", "dequantize", "quantize", "read_tflite", "worker_count"]

# Larger batches were no faster: Python is called rarely enough.
_BATCH = 16
_MOST_WORKERS = 8
# What the activations of all batches under way may take together.
_BATCH_BYTES = 1 << 28
# Kernels may add floats in another order for another batch size.
_SAME = 1e-3


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
    if x.dtype == np.uint8 and x.size > 256:
        # Bytes have 256 values only: quantizing those and looking them up is several times faster.
        table = quantize(np.arange(256, dtype=np.float32), details)
        if dtype.itemsize > 1:
            return table[x]
        # NumPy would turn every byte into an index of 8 bytes first.
        return np.frombuffer(x.tobytes().translate(table.tobytes()), dtype).reshape(x.shape)
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

    `predict` gives each thread an interpreter of its own, which runs whole batches where the graph
    allows it. That a graph treats the images of a batch one by one is not taken on trust: it is
    tried on the first batch, and where outputs differ, every image runs alone.

    Args:
        path: A `.tflite` file, or a `.cc` that holds one.
        threads: Threads of the single-image call; `predict` uses one interpreter a core, up to 8.

    Raises:
        TfpruneError: The file is damaged, or an operator in it cannot be run here.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.name = path.name
        self.threads = threads
        self._path = path
        self._content = read_tflite(path)
        interpreter = self._fresh(threads)
        try:
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        # A name that is no text.
        except ValueError as error:
            raise self._failure(error) from error
        if len(inputs) != 1 or len(outputs) != 1:
            raise TfpruneError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs: "
                "give a model with one of each"
            )
        self._in, self._out = inputs[0], outputs[0]
        signature = [int(n) for n in self._in["shape_signature"]]
        if not signature:
            raise TfpruneError(f"{path} takes a single number: give a model that takes images")
        batch, *shape = (None if n == -1 else n for n in signature)
        # A file that promises one batch size only may mix images when resized: keep to it.
        self.fixed_batch = batch
        self.input_shape = tuple(shape)
        # The first single-image call takes it: a second one would double the memory.
        self._spare: Interpreter | None = interpreter
        self._resizable: bool | None = None
        if None not in shape:
            # Shows at once whether it runs; a free size may not fit the graph until it is set.
            self._allocate(interpreter, (batch or 1, *self.input_shape))
        self.format = self._said(lambda file: file.format(of_c_array=path.suffix == ".cc"))
        self.output_step = float(self._out["quantization"][0])

    def weights(self) -> Iterator[StoredWeights]:
        """The file's constants."""
        yield from self._said(lambda file: list(file.constants()))

    def macs(self) -> int | None:
        """Counted in the file's operators."""
        return self._said(TFLiteFile.macs)

    def _said(self, ask: Callable[[TFLiteFile], Any]) -> Any:
        try:
            return ask(TFLiteFile(self._content))
        # The interpreter may run what does not make sense as a table of weights.
        except (ValueError, IndexError, TypeError, struct.error) as error:
            raise TfpruneError(
                f"{self._path} contradicts itself ({one_line(error)}): do not trust this file"
            ) from error

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
        # A delegate that took over operators is listed as one; Python gives no other than XNNPACK.
        names = {operator["op_name"] for operator in interpreter._get_ops_details()}
        self.delegate = "XNNPACK" if "DELEGATE" in names else "none"

    def _failure(self, error: Exception) -> TfpruneError:
        return TfpruneError(
            f"{self._path} cannot be run by TFLite ({one_line(error)}): export it again"
        )

    def _worker(self) -> Runner:
        """Runs batches on an interpreter of its own, with one thread."""
        interpreter = self._fresh(1)
        allocated: tuple[int, ...] | None = None

        def run(batch: np.ndarray) -> np.ndarray:
            nonlocal allocated
            if allocated != batch.shape:
                self._allocate(interpreter, batch.shape)
                allocated = batch.shape
            interpreter.set_tensor(self._in["index"], quantize(batch, self._in))
            try:
                interpreter.invoke()
            except (RuntimeError, ValueError) as error:
                raise self._failure(error) from error
            outputs = dequantize(interpreter.get_tensor(self._out["index"]), self._out)
            if len(outputs) != len(batch):
                raise self._failure(ValueError(f"{len(batch)} images gave {len(outputs)} outputs"))
            return outputs

        return run

    def _runners(self, images: np.ndarray, batch_size: int) -> tuple[int, Sequence[Runner]]:
        workers = worker_count()
        size = self.fixed_batch or min(batch_size, _BATCH, self._most_in_memory(workers))
        if not self.fixed_batch and not self._takes_batches(images[:size]):
            size = 1
        count = min(workers, -(-len(images) // size))
        return size, [self._worker() for _ in range(count)]

    def _most_in_memory(self, workers: int) -> int:
        each = max(1, self._said(TFLiteFile.activation_bytes))
        return max(1, _BATCH_BYTES // (workers * each))

    def _takes_batches(self, batch: np.ndarray) -> bool:
        """Whether a batch gives what its images give alone."""
        if self._resizable is None and len(batch) > 1:
            ends = batch[:1], batch[-1:]
            alone = self._worker()
            wanted = np.concatenate([alone(image) for image in ends])
            try:
                found = self._worker()(batch)[[0, -1]]
            except TfpruneError:
                # Some graphs hold a reshape to one example and cannot be resized.
                self._resizable = False
                return False
            # One step of a quantized output is a difference; float outputs differ by rounding.
            slack = 0.0 if self.output_step else _SAME * float(np.abs(wanted).max())
            self._resizable = bool(np.allclose(found, wanted, rtol=0.0, atol=slack, equal_nan=True))
        return self._resizable is not False

    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        interpreter, self._spare = self._spare or self._fresh(self.threads), None
        details, output = self._in, self._out["index"]
        self._allocate(interpreter, batch.shape)
        x = quantize(batch, details)

        def call() -> np.ndarray:
            interpreter.set_tensor(details["index"], x)
            interpreter.invoke()
            return interpreter.get_tensor(output)

        return call


def worker_count() -> int:
    """Threads that `predict` uses, with an interpreter each: the cores of this process, up to 8."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(_MOST_WORKERS, cores)
