"""The `.tflite` file, run by the LiteRT interpreter: TensorFlow is not needed."""

from __future__ import annotations

import dataclasses
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfprune.errors import TfpruneError, one_line
from tfprune.formats.runtime import Feeds, Runner, Runtime, StoredWeights, Tensor, described
from tfprune.formats.tflite_file import TFLiteFile

# Of a file with an open batch. Larger ones were no faster: Python is called rarely enough.
_BATCH = 16
# Threads that call shorter ones wait for each other, since they run together only within a call.
# Two were as fast as one at about 12 microseconds, and half as fast again at 20.
_LONG_SECONDS = 2e-5
_TIMED = 3
# What the examples that a thread takes at a time may have as tensors, about a processor's cache.
_CHUNK_BYTES = 1 << 22
# Each thread takes so many chunks at least, so that all end at about the same time.
_CHUNKS = 4
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


def open_file(path: Path, threads: int) -> Runtime:
    """Opens a `.tflite` file."""
    return run_by(path, path.read_bytes(), threads)


def run_by(path: Path, content: bytes, threads: int) -> Runtime:
    """The runtime of a TFLite file: LiteRT's, or TFLite Micro's where its weights are in tables.

    Args:
        path: See `TFLiteRuntime`.
        content: See `TFLiteRuntime`.
        threads: See `TFLiteRuntime`.
    """
    # It builds on this module.
    from tfprune.formats import lut

    coded = lut.is_compressed(content)
    return lut.MicroRuntime(path, content) if coded else TFLiteRuntime(path, content, threads)


class TFLiteRuntime(Runtime):
    """A TFLite model with any number of inputs and outputs.

    A file with a fixed batch runs batch after batch of its own size, and a file with an open batch
    runs batches of several images where the graph allows it. Whether a graph treats the images of a
    batch one by one is tried on the first batch: where outputs differ, every image runs alone.
    Where a call of the interpreter is long enough, as many threads as there are cores share the
    batches, with an interpreter each.

    Args:
        path: The file, for messages.
        content: Its content, or that of the `.tflite` file that it holds.
        threads: Threads of the single-image call; `predict` uses one interpreter a core, up to 8,
            or one in all where its calls are short.

    Raises:
        TfpruneError: The file is damaged, or an operator in it cannot be run here.
    """

    def __init__(self, path: Path, content: bytes, threads: int = 1) -> None:
        # A flatbuffer's identifier follows the 4-byte offset of its root.
        if content[4:8] != b"TFL3":
            raise TfpruneError(
                f"{path} is not a TFLite model: give a .tflite file, or export it again"
            )
        self.name = path.name
        self.threads = threads
        self._path = path
        self._content = content
        interpreter = self._fresh(threads)
        try:
            self._inputs, self._outputs = _ends(interpreter)
        # A name that is not text.
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error
        if not all(len(details["shape_signature"]) for details in self._inputs.values()):
            raise TfpruneError(f"{path} takes a single number: give a model that takes images")
        # A file that promises one batch size only may mix images when resized: keep to it.
        self.inputs, self.outputs = (
            tuple(tensor_of(name, details) for name, details in end.items())
            for end in (self._inputs, self._outputs)
        )
        # The first single-image call takes it: a second one would double the memory.
        self._spare: Interpreter | None = interpreter
        self._resizable: bool | None = None
        self._long: bool | None = None
        if not any(None in each.shape[1:] for each in self.inputs):
            # Shows at once whether it runs; a free size may not fit the graph until it is set.
            self._allocate(interpreter, [tuple(n or 1 for n in x.shape) for x in self.inputs])
        self.format = self._read(TFLiteFile.format)

    def weights(self) -> Iterator[StoredWeights]:
        """The file's constants."""
        yield from self._read(lambda file: list(file.constants()))

    def macs(self) -> int | None:
        """Counted in the file's operators."""
        return self._read(TFLiteFile.macs)

    def activation(self, output: str) -> str | None:
        """Seen in the file's operators."""
        number = int(self._outputs[output]["index"])
        found: str | None = self._read(lambda file: file.activation(number))
        return found

    def _read(self, ask: Callable[[TFLiteFile], Any]) -> Any:
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

    def _allocate(self, interpreter: Interpreter, shapes: Sequence[tuple[int, ...]]) -> None:
        try:
            for details, shape in zip(self._inputs.values(), shapes, strict=True):
                interpreter.resize_tensor_input(details["index"], shape)
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

    def _worker(self, batch: int) -> Runner:
        """Runs any number of examples, so many at a time, on an interpreter with one thread."""
        interpreter = self._fresh(1)
        inputs, outputs = list(self._inputs.items()), list(self._outputs.items())
        places = [details["index"] for _, details in outputs]
        allocated: list[tuple[int, ...]] = []

        def invoked(ready: Sequence[tuple[int, np.ndarray]], found: list[list[np.ndarray]]) -> None:
            """Runs the batches of some examples, all of one size."""
            nonlocal allocated
            shapes = [(min(batch, len(x)), *x.shape[1:]) for _, x in ready]
            if allocated != shapes:
                self._allocate(interpreter, shapes)
                allocated = shapes
            # Of small nets a call takes microseconds, and every name and object counts.
            put, invoke, get = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor
            if len(ready) == len(places) == 1:
                ((index, x),), (place,), (y,) = ready, places, found
                for start in range(0, len(x), batch):
                    put(index, x[start : start + batch])
                    invoke()
                    y.append(get(place))
                return
            for start in range(0, len(ready[0][1]), batch):
                for index, x in ready:
                    put(index, x[start : start + batch])
                invoke()
                for place, y in zip(places, found, strict=True):
                    y.append(get(place))

        def run(feeds: Feeds) -> Feeds:
            ready = [(details["index"], quantize(feeds[name], details)) for name, details in inputs]
            count = len(ready[0][1])
            found: list[list[np.ndarray]] = [[] for _ in outputs]
            full = count - count % batch
            try:
                for part in (slice(full), slice(full, count)):
                    if part.start != count and part.stop:
                        invoked([(index, x[part]) for index, x in ready], found)
            except (RuntimeError, ValueError) as error:
                raise self._failure(error) from error
            made: Feeds = {}
            for (name, details), parts in zip(outputs, found, strict=True):
                got = sum(map(len, parts))
                if got != count or len(parts[0]) != min(batch, count):
                    raise self._failure(ValueError(f"{count} images gave {got} outputs"))
                made[name] = dequantize(np.concatenate(parts), details)
            return made

        return run

    def _run(self, feeds: Feeds) -> Feeds:
        return self._worker(self.fixed_batch or min(len(x) for x in feeds.values()))(feeds)

    def _runners(self, feeds: Feeds, batch_size: int) -> tuple[int, Sequence[Runner]]:
        count, workers = min(len(x) for x in feeds.values()), worker_count()
        batch = self.fixed_batch or min(batch_size, _BATCH, self._most_in_memory(workers))
        if not self.fixed_batch and not self._takes_batches(
            {name: x[:batch] for name, x in feeds.items()}
        ):
            batch = 1
        first = self._worker(batch)
        workers = min(workers, -(-count // batch))
        if workers > 1 and not self._is_long(first, {name: x[:batch] for name, x in feeds.items()}):
            workers = 1
        # A batch that the file does not fix is as large as is useful already.
        chunk = batch if batch > (self.fixed_batch or 1) else self._chunk(feeds, batch, workers)
        chunk = min(chunk, max(batch, batch_size - batch_size % batch))
        workers = min(workers, -(-count // chunk))
        return chunk, [first, *(self._worker(batch) for _ in range(workers - 1))]

    def _chunk(self, feeds: Feeds, batch: int, workers: int) -> int:
        """Examples that a thread takes at a time, a multiple of the batch."""
        count = min(len(x) for x in feeds.values())
        # Of an open size only the examples tell how large they are.
        given = sum(4 * x[0].size for x in feeds.values())
        each = max(1, given, self._read(TFLiteFile.activation_bytes))
        most = min(_CHUNK_BYTES // each, -(-count // (_CHUNKS * workers)))
        return max(1, most // batch) * batch

    def _is_long(self, run: Runner, batch: Feeds) -> bool:
        """Whether threads gain from sharing calls of the interpreter: a few are timed."""
        if self._long is None:
            run(batch)  # The first one allocates.
            took: list[float] = []
            while len(took) < _TIMED and (not took or min(took) < 2 * _LONG_SECONDS):
                begun = time.perf_counter()
                run(batch)
                took.append(time.perf_counter() - begun)
            self._long = min(took) >= _LONG_SECONDS
        return self._long

    def _most_in_memory(self, workers: int) -> int:
        each = max(1, self._read(TFLiteFile.activation_bytes))
        return max(1, _BATCH_BYTES // (workers * each))

    def _takes_batches(self, batch: Feeds) -> bool:
        """Whether a batch gives what its first and last image give alone."""
        if self._resizable is None and min(len(x) for x in batch.values()) > 1:
            alone = self._worker(1)
            first, last = (
                alone({name: x[place] for name, x in batch.items()})
                for place in (slice(0, 1), slice(-1, None))
            )
            try:
                together = self._run(batch)
            except TfpruneError:
                # Some graphs hold a reshape to one example and cannot be resized.
                self._resizable = False
                return False
            self._resizable = all(
                _same(together[y.name][[0, -1]], np.concatenate([first[y.name], last[y.name]]), y)
                for y in self.outputs
            )
        return self._resizable is not False

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        interpreter, self._spare = self._spare or self._fresh(self.threads), None
        self._allocate(interpreter, [feeds[name].shape for name in self._inputs])
        quantized = [
            (details["index"], quantize(feeds[name], details))
            for name, details in self._inputs.items()
        ]
        outputs = [details["index"] for details in self._outputs.values()]

        def call() -> np.ndarray:
            for index, x in quantized:
                interpreter.set_tensor(index, x)
            interpreter.invoke()
            first, *_ = [interpreter.get_tensor(index) for index in outputs]
            return first

        return call


def _ends(interpreter: Interpreter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details of inputs and outputs by the names of the signature, or the tensors' own."""
    ends = (interpreter.get_input_details(), interpreter.get_output_details())
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        signed = (runner.get_input_details(), runner.get_output_details())
        # A signature lists its names in the order of the alphabet.
        inputs, outputs = (
            dict(sorted(named.items(), key=lambda each: order.index(each[1]["index"])))
            for named, order in zip(
                signed, ([details["index"] for details in end] for end in ends), strict=True
            )
        )
        return inputs, outputs
    inputs, outputs = ({details["name"]: details for details in end} for end in ends)
    return inputs, outputs


def tensor_of(name: str, details: dict[str, Any]) -> Tensor:
    """An input or output, as the interpreter describes it.

    Args:
        name: In the signature.
        details: One entry of the interpreter's `get_input_details()`.
    """
    scale, zero_point = details["quantization"]
    plain = described(name, details["shape_signature"], np.dtype(details["dtype"]).name)
    if not scale:
        return plain
    return dataclasses.replace(plain, scale=float(scale), zero_point=int(zero_point))


def _same(found: np.ndarray, wanted: np.ndarray, output: Tensor) -> bool:
    # One step of a quantized output is a difference; float outputs differ by rounding.
    slack = 0.0 if output.scale else _SAME * float(np.abs(wanted).max())
    return bool(np.allclose(found, wanted, rtol=0.0, atol=slack, equal_nan=True))


def worker_count() -> int:
    """Threads that `predict` uses, with an interpreter each: the cores of this process, up to 8."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(_MOST_WORKERS, cores)
