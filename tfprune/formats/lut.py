"""TFLite Micro's compression: int8 weights of few values as indices into tables, one a channel.

The file needs less flash as it is, without an archive. Operators named DECODE write the weights out
into the arena before they are used. Only TFLite Micro has them, so its interpreter runs such files.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.errors import TfpruneError, one_line
from tfprune.formats.runtime import Feeds, Runtime, StoredWeights
from tfprune.formats.sandbox import shared
from tfprune.formats.tflite import dequantize, quantize, tensor_of
from tfprune.formats.tflite_file import DECODE, TFLiteFile, custom_code, end_names
from tfprune.formats.tflite_micro import any_input, interpreter

if TYPE_CHECKING:
    from tfprune.formats.source import Source

# The library takes no more.
_MOST_BITS = 7
# Of a compressed tensor, beside its indices and tables: headers, a tensor and an operator.
_OVERHEAD = 128
_TIMEOUT_SECONDS = 600.0
# Inputs on which both files must give the same bits.
_EXAMPLES = 8


def write(source: Source, path: Path) -> None:
    """Writes a compressed `.tflite` file.

    Args:
        source: The model; its int8 file is what is compressed.
        path: Where to.

    Raises:
        TfpruneError: No weights have few enough values, or the compressed file does not give the
            same bits.
    """
    path.write_bytes(compressed_source(source))


def write_array(source: Source, path: Path) -> None:
    """Writes the compressed file as a C array, see `tfprune.formats.c_array`."""
    from tfprune.formats.c_array import write_c_array

    write_c_array(compressed_source(source), path)


def compressed_source(source: Source) -> bytes:
    """The compressed int8 file of a model, made once for all formats that hold it."""
    from tfprune.formats.tflite_convert import converted

    path = source.scratch / "lut.tflite"
    if not path.exists():
        plain = converted(source, "int8")
        coded = compressed(plain)
        # A wrong table would give wrong numbers without a word.
        shared("tflite_micro").run(
            _check_same_bits, plain, coded, what="the compressed file", timeout=_TIMEOUT_SECONDS
        )
        path.write_bytes(coded)
    return path.read_bytes()


def compressed(content: bytes) -> bytes:
    """An int8 TFLite file whose weights of few values are looked up in tables.

    Example:
        ```python
        compressed(Path("net.int8.tflite").read_bytes())
        ```

    Every channel has a table of its own, and so many bits an index as the channel with the most
    values needs. A tensor that would not become smaller stays as it is. A warning names those that
    stay since their channels have too many values.

    Args:
        content: The file.

    Raises:
        TfpruneError: The file would not become smaller.

    Source:
        https://github.com/tensorflow/tflite-micro/blob/main/tensorflow/lite/micro/docs/compression.md
    """
    from tflite_micro.tensorflow.lite.micro.compression import compress, lut, model_editor, spec

    # It prints what is left over of an index.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = model_editor.read(content).subgraphs[0].tensors
        specs = []
        few, many = _of_few_values(content)
        for number, axis, bits in few:
            method = spec.LookUpTableCompression(bits, spec.PerChannel(axis))
            found = lut.LutCompressor().compress(tensors[number], method)
            needed = len(found.encoded_data) + len(found.ancillary_data) + _OVERHEAD
            if needed < len(tensors[number].buffer.data):
                specs.append(spec.Tensor(0, number, [method]))
        coded = bytes(compress(content, specs)) if specs else content
    if len(coded) >= len(content):
        raise TfpruneError(
            "no weights become smaller in tables, since their channels have too many values, or "
            "too few weights: round them first (the step quantize-weights, or --weight-bits 4), or "
            "export tflite-int8"
        )
    if many:
        named = ", ".join(f"{name} ({values} values)" for name, values in many.items())
        warnings.warn(
            f"weights without a table, since a channel has more than {2**_MOST_BITS} values: "
            f"{named}: round these layers too, or leave them as they are",
            stacklevel=2,
        )
    return coded


def _of_few_values(content: bytes) -> tuple[list[tuple[int, int, int]], dict[str, int]]:
    """Weights that can have a table: the number, the axis of the channels, bits an index.

    And the names of those that cannot, each with the most values of one of its channels.
    """
    few: list[tuple[int, int, int]] = []
    many: dict[str, int] = {}
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() != schema.TensorType.INT8 or not buffer.DataLength():
            continue
        shape = [int(size) for size in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []
        quantization = tensor.Quantization()
        scales = quantization.ScaleLength() if quantization else 0
        axis = quantization.QuantizedDimension() if scales > 1 else 0
        if len(shape) < 2 or axis not in (0, len(shape) - 1):
            continue
        values = np.moveaxis(buffer.DataAsNumpy().view(np.int8).reshape(shape), axis, 0)
        channels = values.reshape(shape[axis], -1)
        most = max(len(np.unique(channel)) for channel in channels)
        bits = max(1, math.ceil(math.log2(most)))
        if bits <= _MOST_BITS:
            few.append((number, axis, bits))
        else:
            many[tensor.Name().decode(errors="replace")] = most
    return few, many


def _check_same_bits(plain: bytes, coded: bytes) -> None:
    """Runs both files in TFLite Micro on some inputs.

    Raises:
        TfpruneError: An output differs, or one does not run.
    """
    both = [interpreter(each) for each in (plain, coded)]
    graph = schema.Model.GetRootAs(plain, 0).Subgraphs(0)
    rng = np.random.default_rng(0)
    for _ in range(_EXAMPLES):
        for place in range(graph.InputsLength()):
            told = both[0].get_input_details(place)
            quantized = len(told["quantization_parameters"]["scales"]) > 0
            x = any_input(told["dtype"], told["shape"], quantized, rng)
            for each in both:
                each.set_input(x, place)
        for each in both:
            each.invoke()
        for place in range(graph.OutputsLength()):
            if not np.array_equal(*(each.get_output(place) for each in both)):
                raise TfpruneError(
                    "the compressed file gives other numbers than the int8 file in TFLite Micro: "
                    "export tflite-int8 instead"
                )


def is_compressed(content: bytes) -> bool:
    """Whether a file is TFLite with operators that decode weights; not if it is damaged."""
    if content[4:8] != b"TFL3":
        return False
    try:
        model = schema.Model.GetRootAs(content, 0)
        return any(
            custom_code(model.OperatorCodes(number)) == DECODE
            for number in range(model.OperatorCodesLength())
        )
    except (ValueError, IndexError, TypeError, struct.error):
        return False


class MicroRuntime(Runtime):
    """A compressed file, run by TFLite Micro's interpreter, one batch of its own size at a time.

    Args:
        path: The file, for messages.
        content: The compressed `.tflite` file that it is or holds.

    Raises:
        UsageError: tflite_micro is not installed.
        TfpruneError: The file cannot be run.
    """

    format = "tflite-lut"
    delegate = "TFLite Micro"

    def __init__(self, path: Path, content: bytes) -> None:
        from tfprune.formats.registry import check_installed

        check_installed([self.format])
        self.name, self._path, self._content = path.name, path, content
        self.threads = 1
        self._interpreter = self._fresh()
        self._inputs, self._outputs = self._ends()
        self.inputs, self.outputs = (
            tuple(tensor_of(name, details) for name, details in end.items())
            for end in (self._inputs, self._outputs)
        )

    def weights(self) -> Iterator[StoredWeights]:
        """What the operators decode, with the bits of an index, and the file's other constants."""
        from tflite_micro.python.tflite_micro.runtime import InterpreterConfig

        model = schema.Model.GetRootAs(self._content, 0)
        graph = model.Subgraphs(0)
        kept = self._fresh(intrepreter_config=InterpreterConfig.kPreserveAllTensors)
        for place, details in enumerate(self._inputs.values()):
            kept.set_input(np.zeros(details["shape"], details["dtype"]), place)
        kept.invoke()
        coded: set[int] = set()
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            if custom_code(model.OperatorCodes(operator.OpcodeIndex())) != DECODE:
                continue
            inputs, outputs = operator.InputsAsNumpy(), operator.OutputsAsNumpy()
            coded |= {int(graph.Tensors(int(i)).Buffer()) for i in inputs}
            # Each output has a pair of inputs: its indices, and its tables.
            for output, encoded in zip(outputs, inputs[::2], strict=True):
                values = kept.GetTensor(int(output), 0)["tensor_data"]
                size = model.Buffers(graph.Tensors(int(encoded)).Buffer()).DataLength()
                name = graph.Tensors(int(output)).Name().decode(errors="replace")
                bits = max(1, 8 * size // max(1, values.size))
                yield StoredWeights(name, values.size, bits, values[values != 0])
        yield from TFLiteFile(self._content).constants(without=coded)

    def macs(self) -> int | None:
        """Counted in the file's operators."""
        return TFLiteFile(self._content).macs()

    def _run(self, feeds: Feeds) -> Feeds:
        count, batch = min(len(x) for x in feeds.values()), self.fixed_batch or 1
        found: dict[str, list[np.ndarray]] = {name: [] for name in self._outputs}
        ready = {name: quantize(feeds[name], details) for name, details in self._inputs.items()}
        for start in range(0, count, batch):
            for place, name in enumerate(self._inputs):
                self._interpreter.set_input(ready[name][start : start + batch], place)
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                raise self._failure(error) from error
            for place, (name, details) in enumerate(self._outputs.items()):
                found[name].append(dequantize(self._interpreter.get_output(place), details))
        return {name: np.concatenate(values) for name, values in found.items()}

    def _ends(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Details of inputs and outputs as LiteRT words them, by the names of the signature."""
        model = schema.Model.GetRootAs(self._content, 0)
        graph = model.Subgraphs(0)
        ask = (self._interpreter.get_input_details, self._interpreter.get_output_details)
        places = (graph.InputsAsNumpy(), graph.OutputsAsNumpy())
        found = []
        for details_of, numbers, named in zip(ask, places, end_names(model), strict=True):
            names = {number: name for name, number in named.items()}
            end = {}
            for place, number in enumerate(map(int, numbers)):
                told = details_of(place)
                scale = told["quantization_parameters"]["scales"]
                zero = told["quantization_parameters"]["zero_points"]
                shape = [int(size) for size in told["shape"]]
                own = graph.Tensors(number).Name().decode(errors="replace")
                end[names.get(number, own)] = {
                    "dtype": told["dtype"],
                    "shape": shape,
                    "shape_signature": shape,
                    "quantization": (float(scale[0]), int(zero[0])) if len(scale) else (0.0, 0),
                }
            found.append(end)
        return found[0], found[1]

    def _fresh(self, **options: Any) -> Any:
        try:
            return interpreter(self._content, **options)
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> TfpruneError:
        return TfpruneError(
            f"{self._path} cannot be run by TFLite Micro ({one_line(error)}): export it again"
        )
