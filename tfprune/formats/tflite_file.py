"""What a TFLite file itself says, and the same file as a runtime wants it.

What it says: its constants, its format, its multiply-accumulates. What runtimes want: the order of
its ends, other operators, floats in place of integers.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.formats.runtime import StoredWeights, stored

_TYPES = schema.TensorType
_FLOATS = {_TYPES.FLOAT32: np.float32, _TYPES.FLOAT16: np.float16}
_INTEGERS = {
    _TYPES.INT4: np.int8,
    _TYPES.INT8: np.int8,
    _TYPES.UINT8: np.uint8,
    _TYPES.INT16: np.int16,
    _TYPES.INT32: np.int32,
    _TYPES.INT64: np.int64,
}
# Bytes of one number of an activation.
ITEM_BYTES = {
    _TYPES.FLOAT32: 4,
    _TYPES.FLOAT16: 2,
    _TYPES.INT32: 4,
    _TYPES.UINT8: 1,
    _TYPES.INT64: 8,
    _TYPES.BOOL: 1,
    _TYPES.INT16: 2,
    _TYPES.INT8: 1,
}
_CODES = schema.BuiltinOperator
# Where their kernel stands among the inputs, and whose positions it is applied at.
_KERNELS = {
    _CODES.CONV_2D: (1, "output"),
    _CODES.DEPTHWISE_CONV_2D: (1, "output"),
    _CODES.CONV_3D: (1, "output"),
    _CODES.FULLY_CONNECTED: (1, "output"),
    _CODES.TRANSPOSE_CONV: (1, "input"),
}
# What an output ends in, by its last operator.
_ACTIVATIONS = {_CODES.LOGISTIC: "sigmoid", _CODES.SOFTMAX: "softmax"}
_LINEAR = {
    _CODES.CONV_2D: schema.Conv2DOptions,
    _CODES.FULLY_CONNECTED: schema.FullyConnectedOptions,
}
_SAME_VALUES = {_CODES.QUANTIZE, _CODES.DEQUANTIZE, _CODES.RESHAPE}
# They repeat what other subgraphs or their own steps do, and how often is not known.
_UNKNOWN = {
    _CODES.WHILE,
    _CODES.IF,
    _CODES.CALL,
    _CODES.CALL_ONCE,
    _CODES.CUSTOM,
    _CODES.BATCH_MATMUL,
    _CODES.LSTM,
    _CODES.RNN,
    _CODES.SVDF,
    _CODES.UNIDIRECTIONAL_SEQUENCE_LSTM,
    _CODES.UNIDIRECTIONAL_SEQUENCE_RNN,
    _CODES.BIDIRECTIONAL_SEQUENCE_LSTM,
    _CODES.BIDIRECTIONAL_SEQUENCE_RNN,
}
# The first version of each operator that knows the type.
_VERSIONS = {
    _CODES.QUANTIZE: {_TYPES.INT8: 1, _TYPES.INT16: 2},
    _CODES.DEQUANTIZE: {_TYPES.INT8: 2, _TYPES.INT16: 3},
}


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator, as a graph shows it.

    Attributes:
        name: Of the first tensor that it makes, by which viewers of graphs know it.
        channels: Of this tensor: its last size.
        weights: How many constants it reads that are floats or quantized.
        nonzero: How many of them are not zero.
    """

    name: str
    channels: int
    weights: int
    nonzero: int


# What TFLite Micro calls the operator that writes compressed weights out.
DECODE = "TFLM_DECODE"


class TFLiteFile:
    """A TFLite flatbuffer that the interpreter has verified.

    Args:
        content: The bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._model = schema.Model.GetRootAs(content, 0)

    def constants(self, without: Collection[int] = ()) -> Iterator[StoredWeights]:
        """Stored floats and quantized integers, a buffer that several tensors share once.

        Shapes and other plain integers are left out. A quantized value stands for zero where it
        equals its zero point.

        Args:
            without: Numbers of buffers that are left out.
        """
        seen = set(without)
        for tensor in self._tensors():
            if tensor.Buffer() in seen:
                continue
            if (weights := self._constant(tensor)) is not None:
                seen.add(tensor.Buffer())
                yield weights

    def format(self) -> str:
        """The name of the export format that the tensors show."""
        activations: set[int] = set()
        constants: set[int] = set()
        sparse = False
        for tensor in self._tensors():
            constant = self._model.Buffers(tensor.Buffer()).DataLength()
            if constant:
                sparse = sparse or tensor.Sparsity() is not None
            if _quantized(tensor) or tensor.Type() in _FLOATS:
                (constants if constant else activations).add(tensor.Type())
        integer = activations & set(_INTEGERS)
        # Single layers of an int8 file may compute in int16, see `tfprune.export`'s keep.
        if _TYPES.INT16 in integer and _TYPES.INT8 not in integer:
            return "tflite-int16x8"
        if integer:
            return "tflite-int8"
        if sparse:
            return "tflite-sparse"
        if _TYPES.FLOAT16 in constants:
            return "tflite-float16"
        return "tflite-dynamic" if constants & set(_INTEGERS) else "tflite"

    def macs(self) -> int | None:
        """Multiply-accumulates of one example, of the operators that have a kernel.

        Returns:
            The count by the convention of `tfprune.macs`, or None where an input's size is open
            or an operator's work is not known from its shapes.
        """
        if self._model.SubgraphsLength() != 1:
            return None
        graph = self._model.Subgraphs(0)
        total = 0
        for i in range(graph.InputsLength()):
            tensor = graph.Tensors(graph.Inputs(i))
            # Without a signature every size is fixed.
            if tensor.ShapeSignatureLength() and (tensor.ShapeSignatureAsNumpy()[1:] == -1).any():
                return None
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            number = operator_code(self._model, operator)
            if custom_code(self._model.OperatorCodes(operator.OpcodeIndex())) == DECODE:
                continue
            if number in _UNKNOWN:
                return None
            if number in _KERNELS:
                total += _macs(graph, operator, number)
        return total

    def activation(self, number: int) -> str | None:
        """What a computed tensor ends in; see `Runtime.activation`.

        Args:
            number: Of the tensor.
        """
        if self._model.SubgraphsLength() != 1:
            return None
        graph = self._model.Subgraphs(0)
        makers = {
            int(place): operator
            for operator in (graph.Operators(i) for i in range(graph.OperatorsLength()))
            for place in operator.OutputsAsNumpy()
        }
        while (operator := makers.pop(number, None)) is not None:
            code = operator_code(self._model, operator)
            if code in _ACTIVATIONS:
                return _ACTIVATIONS[code]
            if code in _LINEAR:
                options = _LINEAR[code]()
                options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
                fused = options.FusedActivationFunction() != schema.ActivationFunctionType.NONE
                return None if fused else "none"
            source = int(operator.Inputs(0))
            same = _shape(graph.Tensors(source))[-1:] == _shape(graph.Tensors(number))[-1:]
            if code not in _SAME_VALUES or not same:
                return None
            number = source
        return None

    def nodes(self) -> list[Node]:
        """Every operator of the main graph, in order, with the constants that it reads."""
        graph = self._model.Subgraphs(0)
        found = []
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            made = graph.Tensors(int(operator.Outputs(0)))
            size = living = 0
            for place in operator.InputsAsNumpy() if operator.InputsLength() else ():
                # An input that is left out is numbered -1.
                weights = None if place < 0 else self._constant(graph.Tensors(int(place)))
                if weights is not None:
                    size, living = size + weights.size, living + len(weights.living)
            name = made.Name().decode(errors="replace")
            found.append(Node(name, (_shape(made) or [1])[-1], size, living))
        return found

    def _constant(self, tensor: Any) -> StoredWeights | None:
        """The weights in a tensor; None for what is computed, and for plain integers."""
        buffer = self._model.Buffers(tensor.Buffer())
        dtype = _FLOATS.get(tensor.Type()) or (_quantized(tensor) and _INTEGERS.get(tensor.Type()))
        if not dtype or not buffer.DataLength():
            return None
        return _weights(tensor, buffer.DataAsNumpy(), dtype)

    def batch(self) -> int | None:
        """Examples that it takes at once; None for any number."""
        graph = self._model.Subgraphs(0)
        tensor = graph.Tensors(graph.Inputs(0))
        # Files of fixed sizes need no signature.
        signed = tensor.ShapeSignatureLength()
        size = int(tensor.ShapeSignature(0)) if signed else (_shape(tensor) or [1])[0]
        return None if size < 0 else size

    def activation_bytes(self) -> int:
        """Bytes of all tensors that are computed, one image's part; none of them reuses memory."""
        return sum(
            ITEM_BYTES.get(tensor.Type(), 2) * math.prod(_shape(tensor)[1:])
            for tensor in self._tensors()
            if not self._model.Buffers(tensor.Buffer()).DataLength()
        )

    def _tensors(self) -> Iterator[Any]:
        for graph in (self._model.Subgraphs(i) for i in range(self._model.SubgraphsLength())):
            yield from (graph.Tensors(i) for i in range(graph.TensorsLength()))


def end_names(model: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The inputs and outputs of a file with one signature: numbers of tensors by their names.

    Args:
        model: The flatbuffer's root.
    """
    if model.SignatureDefsLength() != 1:
        return {}, {}
    signature = model.SignatureDefs(0)
    inputs = (signature.Inputs(i) for i in range(signature.InputsLength()))
    outputs = (signature.Outputs(i) for i in range(signature.OutputsLength()))
    numbers, found = (
        {each.Name().decode(errors="replace"): int(each.TensorIndex()) for each in end}
        for end in (inputs, outputs)
    )
    return numbers, found


def with_order(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The same file, whose inputs and outputs stand in the order of the model.

    The converter puts them in the order of their names, and who runs a file by the numbers of its
    inputs, as TFLite Micro does, would have to know that.

    Args:
        content: A file with one signature.
        inputs: Names of the signature in the order wanted, all of them.
        outputs: Likewise.
    """
    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    graph = model.Subgraphs(0)
    for order, numbers, places in zip(
        (inputs, outputs),
        end_names(model),
        (graph.InputsAsNumpy(), graph.OutputsAsNumpy()),
        strict=True,
    ):
        if len(order) > 1:
            wanted = [numbers[name] for name in order]
            assert sorted(wanted) == sorted(places.tolist())
            # A view of the bytes.
            places[:] = wanted
    return bytes(changed)


def with_select_v2(content: bytes) -> bytes:
    """The same file, with SELECT_V2 where SELECT would do the same.

    Of shapes that it knows the converter makes SELECT, for which TFLite Micro has no kernel. The
    two differ where the condition has one number for each row, so such files stay as they are.

    Args:
        content: A valid `.tflite` file.
    """
    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    old = [
        code
        for code in map(model.OperatorCodes, range(model.OperatorCodesLength()))
        if _number(code) == _CODES.SELECT
    ]
    selects = [
        (graph, operator)
        for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
        for operator in map(graph.Operators, range(graph.OperatorsLength()))
        if operator_code(model, operator) == _CODES.SELECT
    ]
    if not selects or not all(_selects_by_broadcast(*each) for each in selects):
        return content
    for code in old:
        # Fields 0 and 3 of the table: a byte for old readers, and the whole number.
        _overwrite(changed, code, 4, _CODES.SELECT_V2, "<b")
        _overwrite(changed, code, 10, _CODES.SELECT_V2, "<i")
    for _, operator in selects:
        if operator.BuiltinOptionsType():
            options = schema.BuiltinOptions.SelectV2Options
            _overwrite(changed, operator, 10, options, "<B")
    return bytes(changed)


def _selects_by_broadcast(graph: Any, operator: Any) -> bool:
    condition, *values = (_shape(graph.Tensors(int(i))) for i in operator.InputsAsNumpy())
    return not condition or all(condition == shape for shape in values)


def _overwrite(content: bytearray, table: Any, field: int, value: int, form: str) -> None:
    """Writes a number into a flatbuffer's table, in the place of the one that is there."""
    offset = table._tab.Offset(field)
    # A field with its default has no place, and none of the numbers replaced is one.
    assert offset
    struct.pack_into(form, content, table._tab.Pos + offset, value)


def with_float_ends(content: bytes) -> bytes:
    """The same file, with float32 in place of int8 and int16 inputs and outputs.

    Example:
        ```python
        Path("float.tflite").write_bytes(with_float_ends(Path("model.int8.tflite").read_bytes()))
        ```

    One operator before each such input rounds to its integers, one behind each such output
    turns them back, as the converter writes them for `tfprune.export(..., io="float")`.

    Args:
        content: a valid `.tflite` file with one graph.

    Returns:
        The same bytes where no input and no output is quantized.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    # They are views of the bytes, which cannot be written.
    graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
    before: list[Any] = []
    after: list[Any] = []
    for kind, places, end, nodes in (
        (_CODES.QUANTIZE, graph.inputs, "inputs", before),
        (_CODES.DEQUANTIZE, graph.outputs, "outputs", after),
    ):
        for position, number in enumerate(places):
            stored = graph.tensors[number]
            if stored.type not in _VERSIONS[kind]:
                continue
            real = copy.copy(stored)
            real.type, real.quantization, real.buffer = _TYPES.FLOAT32, None, 0
            real.name = stored.name + b"_float"
            graph.tensors.append(real)
            places[position] = new = len(graph.tensors) - 1
            for signature in model.signatureDefs or []:
                for each in getattr(signature, end) or []:
                    if each.tensorIndex == number:
                        each.tensorIndex = new
            node = schema.OperatorT()
            node.opcodeIndex = _opcode(model, kind, _VERSIONS[kind][stored.type])
            pair = [new, int(number)]
            source, target = pair if kind == _CODES.QUANTIZE else pair[::-1]
            node.inputs, node.outputs = [source], [target]
            nodes.append(node)
    if not before and not after:
        return content
    graph.operators = [*before, *(graph.operators or []), *after]
    return packed(model)


def _opcode(model: Any, kind: int, version: int) -> int:
    """The number of an operator in the file's list, to which it is added if it is not there."""
    for number, each in enumerate(model.operatorCodes):
        if each.builtinCode == kind and each.version >= version:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def packed(model: Any) -> bytes:
    """The bytes of a file.

    Args:
        model: an unpacked flatbuffer, `schema.ModelT`.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpacked_code(model: Any, operator: Any) -> int:
    """The same as `operator_code`, of an unpacked flatbuffer.

    Args:
        model: `schema.ModelT`.
        operator: One of its operators.
    """
    code = model.operatorCodes[operator.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def custom_code(code: Any) -> str:
    """What an operator that is not builtin is called; empty for a builtin one.

    Args:
        code: One of the flatbuffer's operator codes.
    """
    name = code.CustomCode()
    return name.decode(errors="replace") if name else ""


def operator_code(model: Any, operator: Any) -> int:
    """The number of an operator among TFLite's builtin ones.

    Args:
        model: The flatbuffer's root.
        operator: One of its operators.
    """
    return _number(model.OperatorCodes(operator.OpcodeIndex()))


def _number(code: Any) -> int:
    # Files of old converters have the deprecated field only.
    return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())


def _quantized(tensor: Any) -> bool:
    quantization = tensor.Quantization()
    return quantization is not None and quantization.ScaleLength() > 0


def _shape(tensor: Any) -> list[int]:
    # Python's numbers do not overflow; a scalar has no shape at all.
    return [int(size) for size in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []


def _weights(tensor: Any, data: np.ndarray, dtype: Any) -> StoredWeights:
    name = tensor.Name().decode(errors="replace")
    four = tensor.Type() == _TYPES.INT4
    values = _nibbles(data, math.prod(_shape(tensor))) if four else data.view(dtype)
    quantization = tensor.Quantization()
    if _quantized(tensor) and quantization.ZeroPointLength() and tensor.Sparsity() is None:
        zero = quantization.ZeroPointAsNumpy()
        if len(zero) > 1:
            # One zero point a channel: it runs along the quantized dimension only.
            values = values.reshape(_shape(tensor))
            values = np.moveaxis(values, quantization.QuantizedDimension(), -1)
        return StoredWeights(
            name, values.size, 4 if four else 8 * values.itemsize, values[values != zero]
        )
    found = stored(name, values)
    # Sparse storage leaves zeros out: the shape knows how many there were.
    size = found.size if tensor.Sparsity() is None else math.prod(_shape(tensor))
    return StoredWeights(name, size, 4 if four else found.bits, found.living)


def _nibbles(data: np.ndarray, size: int) -> np.ndarray:
    """int4 values, two a byte, the lower half first, as int8."""
    pairs = np.stack([(data << 4).view(np.int8) >> 4, data.view(np.int8) >> 4], axis=-1)
    return pairs.reshape(-1)[:size]


def _macs(graph: Any, operator: Any, code: int) -> int:
    place, where = _KERNELS[code]
    kernel = _shape(graph.Tensors(operator.Inputs(place)))
    # TRANSPOSE_CONV reads the shape of what it gives first.
    source = operator.Inputs(2) if where == "input" else operator.Outputs(0)
    shape = _shape(graph.Tensors(source))
    if code == _CODES.FULLY_CONNECTED:
        # Without keep_num_dims the rows of several steps stand in the batch.
        inputs = graph.Tensors(graph.Inputs(0))
        batch = (_shape(inputs) or [1])[0]
        return math.prod(kernel) * math.prod(shape[:-1]) // max(1, batch)
    return math.prod(kernel) * math.prod(shape[1:-1])
