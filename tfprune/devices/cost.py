"""What a plan would cost on a device, before a model is rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import keras
import numpy as np

from tfprune.devices.operators import Operator, uses
from tfprune.devices.search import Removals
from tfprune.model.counting import kernel_uses

# From operators to the milliseconds that each takes, float (operators,).
Times = Callable[[Sequence[Operator]], np.ndarray]
# More channels than any layer has.
_MOST = 1 << 31


class PredictedTime:
    """Milliseconds of one image, as the sum of the model's operators timed alone.

    What the operators do not explain of the present time (pooling, additions, the runtime's own
    work) stays as it is; where the model has kernels that are not timed alone, it shrinks with
    their multiply-accumulates.

    Args:
        removals: what may go.
        times: what operators take.
        present: milliseconds of the whole model as it is now.
    """

    def __init__(self, removals: Removals, times: Times, present: float) -> None:
        self._times = times
        self._uses = uses(removals.groups.model)
        self._alike: dict[Operator, list[int]] = {}
        for column, use in enumerate(self._uses):
            self._alike.setdefault(_without_sizes(use.operator), []).append(column)
        axes = [(use.kernel, axis) for use in self._uses for axis in (use.reads, use.makes)]
        self._sizes = removals.sizes(axes)
        timed = {id(use.kernel) for use in self._uses}
        kernels = kernel_uses(removals.groups.model)
        self._others = _Products(
            removals,
            ((use.kernel, use.positions) for use in kernels if id(use.kernel) not in timed),
        )
        nothing = np.zeros((1, len(removals.ladders)), int)
        self._other = float(self._others(nothing)[0])
        self._rest = max(0.0, present - float(self._timed(nothing)[0]))

    def __call__(self, gone: np.ndarray) -> np.ndarray:
        """Milliseconds, float (plans,), where `gone`, int (plans, groups), units are gone."""
        share = self._others(gone) / self._other if self._other else 1.0
        return self._timed(gone) + self._rest * share

    def _timed(self, gone: np.ndarray) -> np.ndarray:
        sizes = self._sizes(gone).reshape(len(gone), len(self._uses), 2)
        # Both sizes in one number: that sorts much faster than pairs.
        pairs = sizes[..., 0] * _MOST + sizes[..., 1]
        asked: list[Operator] = []
        places = np.empty(pairs.shape, int)
        for operator, columns in self._alike.items():
            found, place = np.unique(pairs[:, columns], return_inverse=True)
            places[:, columns] = place.reshape(len(gone), -1) + len(asked)
            asked += [_with(operator, *divmod(pair, _MOST)) for pair in found.tolist()]
        # All in one call, so that they are timed side by side.
        milliseconds: np.ndarray = self._times(asked)[places].sum(axis=1)
        return milliseconds


class PredictedBytes:
    """Bytes of an artifact, as so many a parameter and what the file holds besides.

    Args:
        removals: what may go.
        per_parameter: bytes of one parameter.
        present: bytes of the artifact of the model as it is now.
    """

    def __init__(self, removals: Removals, per_parameter: float, present: float) -> None:
        weights = removals.groups.model.weights
        self._parameters = _Products(removals, ((weight, per_parameter) for weight in weights))
        nothing = np.zeros((1, len(removals.ladders)), int)
        self._rest = present - float(self._parameters(nothing)[0])

    def __call__(self, gone: np.ndarray) -> np.ndarray:
        """Bytes, float (plans,), where `gone`, int (plans, groups), units are gone."""
        return self._parameters(gone) + self._rest


class _Products:
    """The sum of the sizes of some weights, each times a factor."""

    def __init__(self, removals: Removals, weights: Iterable[tuple[keras.Variable, float]]) -> None:
        weights = list(weights)
        self._factors = [factor for _, factor in weights]
        self._ranks = [len(weight.shape) for weight, _ in weights]
        axes = [(weight, axis) for weight, _ in weights for axis in range(len(weight.shape))]
        self._sizes = removals.sizes(axes)

    def __call__(self, gone: np.ndarray) -> np.ndarray:
        sizes = self._sizes(gone).astype(float)
        total, first = np.zeros(len(gone)), 0
        for factor, rank in zip(self._factors, self._ranks, strict=True):
            total += factor * sizes[:, first : first + rank].prod(axis=1)
            first += rank
        return total


def _without_sizes(operator: Operator) -> Operator:
    """The operator for one channel read, so that those of different widths are alike."""
    if operator.kind == "depthwise":
        return replace(operator, inputs=1, outputs=operator.outputs // operator.inputs)
    return replace(operator, inputs=1, outputs=1)


def _with(operator: Operator, read: int, made: int) -> Operator:
    """One of `_without_sizes` when its kernel's axes have the given lengths."""
    if operator.kind == "depthwise":
        made = read * operator.outputs
    return replace(operator, inputs=read, outputs=made)
