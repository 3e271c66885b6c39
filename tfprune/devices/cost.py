"""Predicts the milliseconds or bytes of removal plans without rebuilding a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import keras
import numpy as np

from tfprune.devices.operators import Operator, operator_calls
from tfprune.devices.search import Removals
from tfprune.model.counting import kernel_uses

# Maps operators to the milliseconds of each, float (operators,).
Times = Callable[[Sequence[Operator]], np.ndarray]
# More channels than any layer has, so that two sizes fit into one number.
_SIZE_BASE = 1 << 31


class PredictedTime:
    """Predicts the milliseconds of one image as the sum of operators that are timed alone.

    Example:
        ```python
        predicted = PredictedTime(removals, OperatorTimes(), present=1.7)
        predicted(np.array([[0, 0], [4, 8]]))  # [1.7, 1.1]: none removed, 4 and 8 units removed
        ```

    The rest of the present time (pooling, additions, the runtime itself) stays constant. If the
    model has kernels that cannot be timed alone, the rest shrinks with their
    multiply-accumulates.

    Args:
        removals: the units that may be removed.
        times: times operators.
        present: milliseconds of the whole model as it is now.
    """

    def __init__(self, removals: Removals, times: Times, present: float) -> None:
        self._times = times
        self._calls = operator_calls(removals.groups.model)
        self._columns: dict[Operator, list[int]] = {}
        for column, call in enumerate(self._calls):
            self._columns.setdefault(_per_channel(call.operator), []).append(column)
        axes = [
            (call.kernel, axis)
            for call in self._calls
            for axis in (call.input_axis, call.output_axis)
        ]
        self._sizes = removals.sizes(axes)
        timed = {id(call.kernel) for call in self._calls}
        kernels = kernel_uses(removals.groups.model)
        self._others = _SumOfProducts(
            removals,
            ((use.kernel, use.positions) for use in kernels if id(use.kernel) not in timed),
        )
        nothing = np.zeros((1, len(removals.ladders)), int)
        self._other_macs = float(self._others(nothing)[0])
        self._rest = max(0.0, present - float(self._timed(nothing)[0]))

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Milliseconds, float (plans,), for removed units `removed`, int (plans, groups)."""
        share = self._others(removed) / self._other_macs if self._other_macs else 1.0
        return self._timed(removed) + self._rest * share

    def _timed(self, removed: np.ndarray) -> np.ndarray:
        sizes = self._sizes(removed).reshape(len(removed), len(self._calls), 2)
        # One number for both sizes: it sorts much faster than pairs.
        pairs = sizes[..., 0] * _SIZE_BASE + sizes[..., 1]
        operators: list[Operator] = []
        indices = np.empty(pairs.shape, int)
        for operator, columns in self._columns.items():
            distinct, index = np.unique(pairs[:, columns], return_inverse=True)
            indices[:, columns] = index.reshape(len(removed), -1) + len(operators)
            operators += [
                _with_sizes(operator, *divmod(pair, _SIZE_BASE)) for pair in distinct.tolist()
            ]
        # One call for all, so that they are timed in turn.
        milliseconds: np.ndarray = self._times(operators)[indices].sum(axis=1)
        return milliseconds


class PredictedBytes:
    """Predicts the bytes of an artifact as bytes per parameter plus a constant.

    Example:
        ```python
        predicted = PredictedBytes(removals, per_parameter=4.0, present=90_000)
        predicted(np.array([[0, 0], [4, 8]]))  # [90000.0, 61200.0]
        ```

    Args:
        removals: the units that may be removed.
        per_parameter: bytes of one parameter.
        present: bytes of the artifact of the model as it is now.
    """

    def __init__(self, removals: Removals, per_parameter: float, present: float) -> None:
        weights = removals.groups.model.weights
        self._parameters = _SumOfProducts(removals, ((weight, per_parameter) for weight in weights))
        nothing = np.zeros((1, len(removals.ladders)), int)
        self._rest = present - float(self._parameters(nothing)[0])

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Bytes, float (plans,), for removed units `removed`, int (plans, groups)."""
        return self._parameters(removed) + self._rest


class _SumOfProducts:
    """The sum over weights of the number of entries times a factor."""

    def __init__(self, removals: Removals, weights: Iterable[tuple[keras.Variable, float]]) -> None:
        weights = list(weights)
        self._factors = [factor for _, factor in weights]
        self._ranks = [len(weight.shape) for weight, _ in weights]
        axes = [(weight, axis) for weight, _ in weights for axis in range(len(weight.shape))]
        self._sizes = removals.sizes(axes)

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        sizes = self._sizes(removed).astype(float)
        total, first = np.zeros(len(removed)), 0
        for factor, rank in zip(self._factors, self._ranks, strict=True):
            total += factor * sizes[:, first : first + rank].prod(axis=1)
            first += rank
        return total


def _per_channel(operator: Operator) -> Operator:
    """The operator with one input channel, equal for operators that differ only in channels."""
    if operator.kind == "depthwise":
        return replace(operator, inputs=1, outputs=operator.outputs // operator.inputs)
    return replace(operator, inputs=1, outputs=1)


def _with_sizes(operator: Operator, inputs: int, outputs: int) -> Operator:
    """The operator of `_per_channel` with the given numbers of channels."""
    if operator.kind == "depthwise":
        outputs = inputs * operator.outputs
    return replace(operator, inputs=inputs, outputs=outputs)
