"""TFLite files whose integer inputs and outputs become float32, for runtimes without integers."""

from __future__ import annotations

import copy
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_CODES = schema.BuiltinOperator
_TYPES = schema.TensorType
# The first version of each operator that knows the type.
_VERSIONS = {
    _CODES.QUANTIZE: {_TYPES.INT8: 1, _TYPES.INT16: 2},
    _CODES.DEQUANTIZE: {_TYPES.INT8: 2, _TYPES.INT16: 3},
}


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
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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
