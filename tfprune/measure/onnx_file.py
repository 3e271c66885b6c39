"""What an ONNX file itself says: its constants and its multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from tfprune.errors import TfpruneError, one_line
from tfprune.measure.stored import StoredWeights, stored

# Operators whose kernel is applied at every position of one of their ends.
_AT_OUTPUTS, _AT_INPUTS, _ON_ROWS = {"Conv"}, {"ConvTranspose"}, {"Gemm", "MatMul"}
# What works on what was computed or in loops: its count does not follow from shapes of weights.
_UNKNOWN = {"Einsum", "If", "Loop", "Scan", "LSTM", "GRU", "RNN", "ConvInteger", "QLinearConv"}


class OnnxFile:
    """An ONNX graph that its runtime has loaded.

    Args:
        path: The file.

    Raises:
        TfpruneError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            model = onnx.load(path)
            for value in model.graph.input:
                # A reshape may join batch and positions: only with one image are places counted.
                for size in value.type.tensor_type.shape.dim[:1]:
                    size.dim_value = 1
            self._graph = shape_inference.infer_shapes(model, data_prop=True).graph
        # protobuf and ONNX raise classes of their own.
        except Exception as error:
            raise TfpruneError(
                f"{path} cannot be read as ONNX ({one_line(error)}): export it again"
            ) from error

    def constants(self) -> Iterator[StoredWeights]:
        """Stored floats with an axis; single factors, shapes and whole numbers are no weights."""
        for tensor in self._graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim and np.issubdtype(values.dtype, np.floating):
                yield stored(tensor.name, values)

    def macs(self) -> int | None:
        """Multiply-accumulates of one example, of the operators that have a kernel.

        Returns:
            The count by the convention of `tfprune.macs`, or None where a shape is not known or
            an operator's work does not follow from its shapes.
        """
        shapes = self._shapes()
        kernels = {tensor.name: tuple(tensor.dims) for tensor in self._graph.initializer}
        total = 0
        for node in self._graph.node:
            if node.op_type in _UNKNOWN:
                return None
            if node.op_type not in _AT_OUTPUTS | _AT_INPUTS | _ON_ROWS:
                continue
            kernel = kernels.get(node.input[1])
            if kernel is None:
                return None
            at = shapes.get(node.output[0] if node.op_type in _AT_OUTPUTS else node.input[0])
            # (batch, channels, *positions), or (*positions, features).
            places = at and (at[:-1] if node.op_type in _ON_ROWS else at[2:])
            if places is None:
                return None
            known = [place for place in places if place is not None]
            if len(known) < len(places):
                return None
            total += math.prod(known) * math.prod(kernel)
        return total

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        graph = self._graph
        return {
            value.name: _shape(value)
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
        }


def _shape(value: Any) -> tuple[int | None, ...]:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
