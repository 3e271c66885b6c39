"""How far a training is: the steps of the optimizer that really moves the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

# What changes in an optimizer whenever it is applied: a scaled loss that overflows moves only
# the scale.
_MOVING = ("_iterations", "step_counter", "dynamic_scale")


class StepCounter:
    """Counts the updates of some weights.

    A model may have several optimizers, as that of a GAN has, and the one it was compiled with
    may never be applied. The count is that of the optimizer which owns most of the weights, among
    those that have been applied since; where none has been while batches pass, it is the batches.

    Args:
        model: that trains; optimizers are its attributes, or those of models within it.
        variables: the weights.
    """

    def __init__(self, model: Any, variables: Sequence[keras.Variable]) -> None:
        self._optimizers = list(_optimizers(model))
        self._variables = {id(variable) for variable in variables}
        self._before = [_state(optimizer) for optimizer in self._optimizers]
        # Those that were seen to move, and so need no second look.
        self._moved: set[int] = set()
        self._batches = 0
        self._last_batch = -1
        # How many optimizers had moved when it was found whether that leaves weights alone.
        self._checked = (0, True)
        self._start = self._iterations(self._ranked(self._optimizers))

    def count_batch(self, index: int) -> None:
        """Counts the batches of an epoch up to this one, which are over."""
        passed = index - self._last_batch
        self._batches += passed if passed > 0 else index + 1
        self._last_batch = index

    @property
    def known(self) -> bool:
        """Whether the model has an optimizer at all."""
        return bool(self._optimizers)

    @property
    def single(self) -> bool:
        """Whether there is only one optimizer, so that each batch is one step of it."""
        return len(self._optimizers) == 1

    @property
    def moved(self) -> bool:
        """Whether an optimizer of these weights has been applied."""
        return bool(self._owners())

    @property
    def left_alone(self) -> bool:
        """Whether some of the weights belong to no optimizer that was applied.

        Something else moves them then, which knows of no constraint.
        """
        owners = self._owners()
        if len(owners) != self._checked[0]:
            owned = {id(variable) for optimizer in owners for variable in _owned(optimizer)}
            self._checked = (len(owners), not self._variables <= owned)
        return self._checked[1]

    @property
    def accumulated(self) -> int:
        """Batches that make one step."""
        first = next(iter(self._ranked(self._optimizers)), None)
        inner = getattr(first, "inner_optimizer", first)
        return getattr(inner, "gradient_accumulation_steps", None) or 1

    def now(self) -> int:
        """The number of updates so far."""
        owners = self._owners()
        if owners or not self._batches:
            return self._iterations(self._ranked(owners or self._optimizers))
        return self._start + self._batches

    def _owners(self) -> list[Any]:
        """The optimizers that were applied, and have weights of these."""
        for place, optimizer in enumerate(self._optimizers):
            if place not in self._moved and _state(optimizer) != self._before[place]:
                self._moved.add(place)
        moved = (self._optimizers[place] for place in sorted(self._moved))
        return [optimizer for optimizer in moved if self._count(optimizer)]

    def _count(self, optimizer: Any) -> int:
        return sum(id(variable) in self._variables for variable in _owned(optimizer))

    def _ranked(self, optimizers: Iterable[Any]) -> list[Any]:
        # Stable: of equals the model's own is the first.
        return sorted(optimizers, key=lambda one: (-self._count(one), -_iterations(one)))

    @staticmethod
    def _iterations(ranked: Sequence[Any]) -> int:
        return _iterations(ranked[0]) if ranked else 0


def _optimizers(model: Any) -> Iterator[Any]:
    """The optimizers of a model: its own, its other attributes, those of the models within."""
    seen: set[int] = set()
    for holder in (model, *model._flatten_layers(include_self=False)):
        for value in (getattr(holder, "optimizer", None), *vars(holder).values()):
            for item in _flat(value):
                if isinstance(item, keras.optimizers.Optimizer) and id(item) not in seen:
                    seen.add(id(item))
                    yield item


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)


def _owned(optimizer: Any) -> list[Any]:
    """The variables that an optimizer moves, once it is built."""
    inner = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    own = list(getattr(optimizer, "_trainable_variables", ()))
    return own + [variable for part in inner if part is not None for variable in _owned(part)]


def _state(optimizer: Any) -> tuple[float, ...]:
    parts = (optimizer, getattr(optimizer, "inner_optimizer", None))
    values = (getattr(part, name, None) for part in parts if part is not None for name in _MOVING)
    return tuple(float(_number(value)) for value in values if value is not None)


def _iterations(optimizer: Any) -> int:
    return int(_number(optimizer.iterations))


def _number(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value)
