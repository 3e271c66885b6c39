"""Ranges of integer files: those of a quantization-aware model, and what too small ones cut off.

TensorFlow's converter reads ranges of 8 bits from a graph; with 16 it writes files that compute
other numbers, or none. So ranges for int16 travel through it as marks: operators that change no
value, and that a constant tells apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.formats.tflite_file import operator_code, packed, unpacked_code

_CODES = schema.BuiltinOperator
# No activation is as low, and each number below 2**23 has a float32 of its own.
_LOWEST = -(2.0**100)
_UNIT = 2.0**-23
# They give values of their first input, or of all: a range that holds these holds the output.
_SAME_VALUES = {
    _CODES.BATCH_TO_SPACE_ND,
    _CODES.CONCATENATION,
    _CODES.DEPTH_TO_SPACE,
    _CODES.EXPAND_DIMS,
    _CODES.MAXIMUM,
    _CODES.MAX_POOL_2D,
    _CODES.MINIMUM,
    _CODES.PACK,
    _CODES.PAD,
    _CODES.REDUCE_MAX,
    _CODES.REDUCE_MIN,
    _CODES.RELU,
    _CODES.RELU6,
    _CODES.RESHAPE,
    _CODES.RESIZE_BILINEAR,
    _CODES.RESIZE_NEAREST_NEIGHBOR,
    _CODES.SLICE,
    _CODES.SPACE_TO_BATCH_ND,
    _CODES.SPACE_TO_DEPTH,
    _CODES.SPLIT,
    _CODES.SQUEEZE,
    _CODES.STRIDED_SLICE,
    _CODES.TILE,
    _CODES.TRANSPOSE,
    _CODES.UNPACK,
}
# What these give may be none of their values.
_CHANGED = {_CODES.RESIZE_BILINEAR, _CODES.RELU, _CODES.RELU6}
# Where operators with a bias have their input, weights and bias.
_BIASED = {
    _CODES.CONV_2D: (0, 1, 2),
    _CODES.DEPTHWISE_CONV_2D: (0, 1, 2),
    _CODES.FULLY_CONNECTED: (0, 1, 2),
    _CODES.TRANSPOSE_CONV: (2, 1, 3),
}
_BIAS_TYPES = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
# ai-edge-quantizer cuts biases off here, those of int16 too.
_MOST = 2**31 - 1

Ranges = dict[str, tuple[float, float]]
"""The lowest and the highest value of tensors, by their names in a file."""


def mark(number: int) -> np.float32:
    """The constant that a marked tensor is the maximum with.

    Args:
        number: of the mark, 0 or more.
    """
    return np.float32(_LOWEST * (1 + number * _UNIT))


def _number_of(constant: Any) -> int | None:
    """The number of a mark; None for another constant."""
    if constant is None or len(constant) != 4:
        return None
    value = float(np.asarray(constant, np.uint8).view(np.float32)[0])
    if not 2 * _LOWEST < value <= _LOWEST:
        return None
    return round((value / _LOWEST - 1) / _UNIT)


def without_marks(
    content: bytes, marks: Mapping[int, tuple[float, float]]
) -> tuple[bytes, Ranges, list[str]]:
    """A float32 file without the marks in it, and what these say.

    Args:
        content: a valid `.tflite` file with one graph.
        marks: the lowest and highest value of each mark, by its number.

    Returns:
        The file; the ranges of its tensors, where a mark or the operators before tell them; and the
        names of the operators that have some tensor of floats without a range.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
    known: dict[int, tuple[float, float]] = {}
    instead: dict[int, int] = {}
    operators = []
    for operator in graph.operators:
        operator.inputs = [instead.get(int(place), int(place)) for place in operator.inputs]
        marked = _marked(model, graph, operator)
        if marked is None:
            operators.append(operator)
            _pass_on(model, graph, operator, known)
        else:
            place, number = marked
            instead[int(operator.outputs[0])] = place
            known[place] = marks[number]
    graph.operators = operators
    _hand_back(model, graph, known)
    graph.outputs = [instead.get(int(place), int(place)) for place in graph.outputs]
    for signature in model.signatureDefs or []:
        for each in signature.outputs or []:
            each.tensorIndex = instead.get(each.tensorIndex, each.tensorIndex)
    new = _without_unused(graph)
    for signature in model.signatureDefs or []:
        for each in (*(signature.inputs or []), *(signature.outputs or [])):
            each.tensorIndex = new[each.tensorIndex]
    known = {new[place]: ends for place, ends in known.items()}
    names = [tensor.name.decode(errors="replace") for tensor in graph.tensors]
    # ai-edge-quantizer knows an operator by the names of all its outputs.
    floats = [
        ";".join(names[place] for place in operator.outputs)
        for operator in operators
        if any(
            _is_activation(model, graph, place) and place not in known
            for place in (*operator.inputs, *operator.outputs)
        )
    ]
    return packed(model), {names[place]: ends for place, ends in known.items()}, floats


def _without_unused(graph: Any) -> dict[int, int]:
    """Takes tensors that nothing reads or makes out of a graph; returns the others' new places."""
    lists = [graph.inputs, graph.outputs]
    for operator in graph.operators:
        operator.inputs, operator.outputs = list(operator.inputs), list(operator.outputs)
        lists += [operator.inputs, operator.outputs]
    used = sorted({int(place) for places in lists for place in places if place >= 0})
    new = {place: number for number, place in enumerate(used)}
    for places in lists:
        places[:] = [new.get(int(place), -1) for place in places]
    graph.tensors = [graph.tensors[place] for place in used]
    return new


def _marked(model: Any, graph: Any, operator: Any) -> tuple[int, int] | None:
    """The tensor that an operator marks, and the mark's number; None for another operator."""
    if unpacked_code(model, operator) != _CODES.MAXIMUM:
        return None
    one, other = operator.inputs
    for place, constant in ((one, other), (other, one)):
        number = _number_of(model.buffers[graph.tensors[constant].buffer].data)
        if number is not None:
            return place, number
    return None


def _pass_on(model: Any, graph: Any, operator: Any, known: dict[int, tuple[float, float]]) -> None:
    """Notes the ranges of what an operator gives, where those of its inputs are theirs too."""
    read = [place for place in operator.inputs if _is_activation(model, graph, place)]
    constants = [
        place
        for place in operator.inputs
        if place >= 0 and place not in read and _holds_floats(graph, place)
    ]
    if unpacked_code(model, operator) not in _SAME_VALUES or constants or not read:
        return
    if all(place in known for place in read):
        lows, highs = zip(*(known[place] for place in read), strict=True)
        known.update({int(place): (min(lows), max(highs)) for place in operator.outputs})


def _hand_back(model: Any, graph: Any, known: dict[int, tuple[float, float]]) -> None:
    """Notes the ranges of tensors that an operator moves, where it alone reads them."""
    readers = Counter(int(place) for operator in graph.operators for place in operator.inputs)
    readers.update(int(place) for place in graph.outputs)
    for operator in reversed(graph.operators):
        read = [place for place in operator.inputs if _is_activation(model, graph, place)]
        result = int(operator.outputs[0])
        moves = (
            unpacked_code(model, operator) in _SAME_VALUES - _CHANGED and len(operator.outputs) == 1
        )
        if moves and len(read) == 1 and readers[read[0]] == 1 and result in known:
            known.setdefault(read[0], known[result])


def unknown_inputs_and_outputs(content: bytes, ranges: Ranges) -> list[str]:
    """The names of the inputs and outputs of floats whose ranges are not known.

    Args:
        content: a valid `.tflite` file with one graph.
        ranges: of its tensors.
    """
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    places = {*graph.InputsAsNumpy().tolist(), *graph.OutputsAsNumpy().tolist()}
    tensors = [graph.Tensors(place) for place in sorted(places)]
    names = [
        tensor.Name().decode(errors="replace")
        for tensor in tensors
        if tensor.Type() == schema.TensorType.FLOAT32
    ]
    return [name for name in names if name not in ranges]


def _holds_floats(graph: Any, place: int) -> bool:
    return bool(graph.tensors[place].type == schema.TensorType.FLOAT32)


def _is_activation(model: Any, graph: Any, place: int) -> bool:
    """Whether a tensor holds floats that are computed, not stored."""
    if place < 0 or not _holds_floats(graph, place):
        return False
    return model.buffers[graph.tensors[place].buffer].data is None


def computed_floats(content: bytes) -> set[str]:
    """The names of the tensors of floats that a file computes.

    Args:
        content: a valid `.tflite` file.
    """
    model = schema.Model.GetRootAs(content, 0)
    found = set()
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
            stored = model.Buffers(tensor.Buffer()).DataLength()
            if tensor.Type() == schema.TensorType.FLOAT32 and not stored:
                found.add(tensor.Name().decode(errors="replace"))
    return found


# -- biases that do not fit ---------------------------------------------------------------------


@dataclass(frozen=True)
class CutOff:
    """A bias of an integer file that is larger than its integers, so that the file is wrong.

    Its step is that of the input times that of the weights: a filter of zeros, or an input that is
    always zero, has hardly any.

    Attributes:
        operator: its name.
        weights: the name of the tensor of its weights.
        bias: the name of the tensor.
        step: of the input; not a finite number where its range is empty.
        axis: of the weights, along which they have steps of their own.
        largest: the largest integer of the weights: 127 of int8, 7 of int4.
    """

    operator: str
    weights: str
    bias: str
    step: float
    axis: int
    largest: int


def cut_off(content: bytes) -> list[CutOff]:
    """The biases of a file that do not fit.

    Args:
        content: a valid `.tflite` file.
    """
    model = schema.Model.GetRootAs(content, 0)
    found = []
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            places = _BIASED.get(operator_code(model, operator))
            if places is None or operator.InputsLength() <= max(places):
                continue
            read, weights, bias = (operator.Inputs(place) for place in places)
            if bias < 0 or graph.Tensors(bias).Type() not in _BIAS_TYPES:
                continue
            if not model.Buffers(graph.Tensors(bias).Buffer()).DataLength():
                continue
            x, kernel, summand = (graph.Tensors(place) for place in (read, weights, bias))
            steps = [_steps(each) for each in (x, kernel)]
            stored = model.Buffers(summand.Buffer()).DataAsNumpy()
            integers = np.asarray(stored).view(_BIAS_TYPES[summand.Type()]).astype(np.float64)
            # A filter of zeros without a bias may have a step of zero.
            usable = all(np.all(np.isfinite(each)) for each in steps)
            if usable and np.abs(integers).max(initial=0) < _MOST:
                continue
            result = graph.Tensors(operator.Outputs(0))
            found.append(
                CutOff(
                    result.Name().decode(errors="replace"),
                    kernel.Name().decode(errors="replace"),
                    summand.Name().decode(errors="replace"),
                    float(steps[0][0]) if usable else math.nan,
                    kernel.Quantization().QuantizedDimension() if len(steps[1]) > 1 else -1,
                    7 if kernel.Type() == schema.TensorType.INT4 else 127,
                )
            )
    return found


def _steps(tensor: Any) -> np.ndarray:
    quantization = tensor.Quantization()
    known = quantization is not None and quantization.ScaleLength()
    return quantization.ScaleAsNumpy() if known else np.ones(1, np.float32)


def wider_weights(content: bytes, cut: Sequence[CutOff]) -> dict[str, np.ndarray]:
    """How large the weights of channels have to be taken for, so that biases fit.

    Weights become zeros where they are that much smaller than their bias.

    Args:
        content: the float32 file.
        cut: of the integer file that was made of it.

    Returns:
        The largest value by the names of weights, of a shape that multiplies with them. A bias
        whose input has no range is left out.
    """
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    tensors = {
        tensor.Name().decode(errors="replace"): tensor
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength()))
    }

    def values(name: str) -> np.ndarray:
        tensor = tensors[name]
        data = np.asarray(model.Buffers(tensor.Buffer()).DataAsNumpy()).view(np.float32)
        return data.reshape(tensor.ShapeAsNumpy())

    found = {}
    for each in cut:
        if not math.isfinite(each.step) or not {each.weights, each.bias} <= tensors.keys():
            continue
        weights, bias = values(each.weights), np.abs(values(each.bias))
        axes = tuple(axis for axis in range(weights.ndim) if axis != each.axis)
        largest = np.abs(weights).max(axes, keepdims=True)
        needed = bias if each.axis >= 0 else bias.max(keepdims=True)
        least = each.largest * needed / (each.step * _MOST / 2)
        found[each.weights] = np.maximum(largest, least.reshape(largest.shape).astype(np.float32))
    return found
