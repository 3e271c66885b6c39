"""Predicts the milliseconds, cycles or bytes of removal plans without rebuilding a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import keras
import numpy as np

from tfprune.devices.operators import Operator, operator_calls
from tfprune.devices.removals import Removals
from tfprune.model.counting import kernel_uses

# Maps operators to a figure of each, such as milliseconds, float (operators,).
Times = Callable[[Sequence[Operator]], np.ndarray]
# More channels than any layer has, so that two sizes fit into one number.
_SIZE_BASE = 1 << 31


class _Parts:
    """A figure of each operator of a model, when units are removed."""

    def __init__(self, removals: Removals, times: Times) -> None:
        self._times = times
        self.calls = operator_calls(removals.groups.model)
        self._columns: dict[Operator, list[int]] = {}
        for column, call in enumerate(self.calls):
            self._columns.setdefault(_per_channel(call.operator), []).append(column)
        axes = [
            (call.kernel, axis)
            for call in self.calls
            for axis in (call.input_axis, call.output_axis)
        ]
        self._sizes = removals.sizes(axes)

    def sizes(self, removed: np.ndarray) -> np.ndarray:
        """Input and output channels, int (plans, operators, 2)."""
        return self._sizes(removed).reshape(len(removed), len(self.calls), 2)

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Float (plans, operators)."""
        sizes = self.sizes(removed)
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
        found: np.ndarray = self._times(operators)[indices]
        return found


class PredictedSum:
    """Predicts the milliseconds or cycles of one image as the sum of operators taken alone.

    Example:
        ```python
        predicted = PredictedSum(removals, OperatorTimes(), present=1.7)
        predicted(np.array([[0, 0], [4, 8]]))  # [1.7, 1.1]: none removed, 4 and 8 units removed
        ```

    The rest of the present time (pooling, additions, the runtime itself) stays constant, or
    shrinks with what the operators write. If the model has kernels that cannot be timed alone, a
    rest that would stay shrinks with their multiply-accumulates.

    Args:
        removals: the units that may be removed.
        times: the milliseconds or cycles of operators.
        present: those of the whole model as it is now.
        shrinking_rest: whether the rest shrinks with the outputs of the operators: for a device
            whose runtime takes no time itself.
    """

    def __init__(
        self, removals: Removals, times: Times, present: float, *, shrinking_rest: bool = False
    ) -> None:
        self._parts = _Parts(removals, times)
        self._shrinking_rest = shrinking_rest
        timed = {id(call.kernel) for call in self._parts.calls}
        kernels = kernel_uses(removals.groups.model)
        self._others = _SumOfProducts(
            removals,
            ((use.kernel, use.positions) for use in kernels if id(use.kernel) not in timed),
        )
        self._pixels = np.array([math.prod(call.operator.target) for call in self._parts.calls])
        nothing = np.zeros((1, len(removals.ladders)), int)
        self._whole = float(self._driver(nothing)[0])
        self._rest = max(0.0, present - float(self._parts(nothing).sum()))

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Float (plans,), for removed units `removed`, int (plans, groups)."""
        share = self._driver(removed) / self._whole if self._whole else 1.0
        return self._parts(removed).sum(axis=1) + self._rest * share

    def _driver(self, removed: np.ndarray) -> np.ndarray:
        """What the rest shrinks with; zeros where it does not."""
        if self._shrinking_rest:
            outputs: np.ndarray = self._parts.sizes(removed)[..., 1] @ self._pixels
            return outputs
        return self._others(removed)


class PredictedPeak:
    """Predicts the peak of memory: that of the operator that alone needs the most.

    Example:
        ```python
        predicted = PredictedPeak(removals, OperatorFigures(device, "sram_bytes", folder), 52_000)
        predicted(np.array([[0, 0], [4, 8]]))  # [52000.0, 36000.0]
        ```

    What else is kept meanwhile, such as the input of a residual block, shrinks in proportion.

    Args:
        removals: the units that may be removed.
        memory: the bytes of operators.
        present: the peak of the whole model as it is now, bytes.
    """

    def __init__(self, removals: Removals, memory: Times, present: float) -> None:
        self._parts = _Parts(removals, memory)
        nothing = np.zeros((1, len(removals.ladders)), int)
        alone = float(self._parts(nothing).max(initial=0.0))
        self._scale = present / alone if alone else 0.0

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        """Bytes, float (plans,), for removed units `removed`, int (plans, groups)."""
        peaks: np.ndarray = self._parts(removed).max(axis=1, initial=0.0)
        return self._scale * peaks


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
