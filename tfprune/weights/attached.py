"""Constraints attached to the weights of a model while it trains, and taken off again.

A mask is a Keras constraint (`MaskConstraint`), which the optimizer applies inside the compiled
step; so is what keeps weights equal (`tfprune.quantize`). `AttachedConstraints` are those of one
training. Two things would let them go astray:

- Callbacks set weights: averages are put in at the end of an epoch or for a validation, the best
  weights are put back at the end of the training. Which of them comes first depends on the list
  that `fit` is given. So a `HoldingCallback` takes a place behind each callback of the running
  fit, where it applies its constraints again, and the last one, where it takes them off.
- No callback hears of an error or an interrupt in `fit`, so the constraints of that fit stay on.
  Keras asks the model for its train function first thing in every training. While a fit holds
  constraints, the model answers with a `_Guard`, which knows that a second question means a second
  training. Another callback of the same fit, such as `LearnStructure`, asks for a new one by force.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import keras
import numpy as np
from keras import ops

from tfprune.model.constraints import unlink
from tfprune.weights.masks import masked
from tfprune.weights.selection import Picks, prunable

_TRAIN_FUNCTION = "make_train_function"


class MaskConstraint(keras.constraints.Constraint):
    """Holds the dead entries of a weight at exactly zero, after every update of any optimizer.

    It is set on the variable (`variable.constraint`), not on its layer, so that a saved model
    never carries it.

    Args:
        shape: shape of the weight.
        inner: the constraint the weight had before. It is applied first, and the mask after it.

    Attributes:
        mask: bool variable of that shape, True where a weight lives; all of them at first. A
            variable, since the compiled step would bake an array in as a constant.
    """

    def __init__(self, shape: tuple[int, ...], inner: Callable[[Any], Any] | None = None) -> None:
        self.inner = inner
        self.mask = keras.Variable(np.ones(shape, bool), dtype="bool", trainable=False, name="mask")

    def __call__(self, w: Any) -> Any:
        """Applies the inner constraint, then the mask."""
        return self.project(w if self.inner is None else self.inner(w))

    def project(self, w: Any) -> Any:
        """Sets the dead entries of a weight to +0 and leaves the others bit for bit."""
        w = ops.convert_to_tensor(w)
        # Not a product: NaN * 0 is NaN, and -1 * 0 is -0.
        return ops.where(self.mask, w, ops.zeros_like(w))


class WeightConstraint(Protocol):
    """A constraint that can be applied apart from the constraint that its weight had before."""

    inner: Callable[[Any], Any] | None

    def __call__(self, w: Any) -> Any:
        """Applies the inner constraint, then this one."""

    def project(self, w: Any) -> Any:
        """Applies this constraint alone."""


C = TypeVar("C", bound=WeightConstraint)


class AttachedConstraints(Generic[C]):
    """A constraint on each of some weights, for the time of one training.

    Args:
        variables: the weights; each keeps the constraint it has, below the new one.
        make: makes the constraint of a weight, from its shape and the constraint it had.
    """

    def __init__(
        self,
        variables: Iterable[keras.Variable],
        make: Callable[[tuple[int, ...], Callable[[Any], Any] | None], C],
    ) -> None:
        self._pairs: list[tuple[keras.Variable, C]] = []
        for variable in variables:
            constraint = make(variable.shape, variable.constraint)
            variable.constraint = constraint
            self._pairs.append((variable, constraint))

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[tuple[keras.Variable, C]]:
        return iter(self._pairs)

    def values(self) -> Iterator[np.ndarray]:
        """The weights as arrays, in their order."""
        return (ops.convert_to_numpy(variable) for variable, _ in self._pairs)

    def apply(self) -> None:
        """Makes the weights what their constraints say."""
        for variable, constraint in self._pairs:
            variable.assign(constraint.project(variable))

    def enter_fit(self, model: keras.Model) -> None:
        """Traces a model's step anew, with the constraints; a fit that breaks down loses them.

        Args:
            model: in `fit`, about to train.
        """
        guard = _guard_of(model)
        if guard is None:
            guard = _Guard(model)
            setattr(model, _TRAIN_FUNCTION, guard)
        if self not in guard.attached:
            guard.attached.append(self)
        # fit has made its train function before it calls its callbacks, and would run that one.
        type(model).make_train_function(model, force=True)

    def detach(self, model: keras.Model) -> None:
        """Takes the constraints off; the weights have those they had before.

        Args:
            model: the model they are on, whose step is traced anew without them.
        """
        self.unlink()
        model.train_function = None
        guard = _guard_of(model)
        if guard is not None:
            guard.attached = [other for other in guard.attached if other is not self]
            if not guard.attached:
                delattr(model, _TRAIN_FUNCTION)

    def unlink(self) -> None:
        """Takes the constraints out of the chains of constraints on their weights."""
        for variable, constraint in self._pairs:
            # Others may have put a constraint of theirs above it since.
            unlink(variable, constraint)
        self._pairs = []


class AttachedMasks(AttachedConstraints[MaskConstraint]):
    """A mask on each of some weights, every entry alive at first.

    Args:
        variables: the weights; each keeps the constraint it has, below the mask.
    """

    def __init__(self, variables: Iterable[keras.Variable] = ()) -> None:
        super().__init__(variables, MaskConstraint)

    def assign(self, masks: Sequence[np.ndarray]) -> None:
        """Changes all masks, and sets what is dead to zero.

        Args:
            masks: bool arrays, one for each weight, True where it lives.
        """
        for (_, constraint), mask in zip(self._pairs, masks, strict=True):
            constraint.mask.assign(mask)
        self.apply()

    def change(self, index: int, value: np.ndarray, mask: np.ndarray) -> None:
        """Changes one mask, and sets what is dead to zero.

        Args:
            index: which weight.
            value: what the weight is now; read already, it saves the time to project it.
            mask: bool array, True where it lives.
        """
        variable, constraint = self._pairs[index]
        constraint.mask.assign(mask)
        variable.assign(masked(value, mask))


class _Guard:
    """Stands in for a model's `make_train_function` while a fit has constraints on the model."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.attached: list[AttachedConstraints[Any]] = []

    def __call__(self, force: bool = False) -> Any:
        if force:
            return type(self.model).make_train_function(self.model, force=True)
        self.detach_all()
        # A step traced with the constraints would go on applying them.
        return self.model.make_train_function(force=True)

    def detach_all(self) -> None:
        for attached in self.attached:
            attached.unlink()
        delattr(self.model, _TRAIN_FUNCTION)


def _guard_of(model: keras.Model) -> _Guard | None:
    guard = vars(model).get(_TRAIN_FUNCTION)
    return guard if isinstance(guard, _Guard) else None


def detach_leftovers(model: keras.Model) -> None:
    """Takes off the constraints that a fit of a model has left, if one has.

    Args:
        model: about to be trained by hand.
    """
    guard = _guard_of(model)
    if guard is not None:
        guard.detach_all()


class HoldingCallback(keras.callbacks.Callback):
    """Holds constraints to the very end of a fit, and leaves nothing in the model afterwards.

    A subclass makes the constraints and hands them to `_enter_fit`, then calls
    `_surround_callbacks` once in `on_train_begin`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._attached: AttachedConstraints[Any] = AttachedMasks()
        self._list: keras.callbacks.CallbackList | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Constrains what another callback put into the weights, such as averages."""
        self._attached.apply()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Constrains what is left, and takes the constraints off once no callback follows."""
        # An optimizer with use_ema has just put averages in, which no constraint has seen.
        self._attached.apply()
        if self._list is None:
            self._finish()

    def _enter_fit(self, attached: AttachedConstraints[Any]) -> None:
        """Puts constraints to work in the fit that has just begun, or goes on."""
        self._attached = attached
        attached.enter_fit(self.model)

    def _surround_callbacks(self) -> None:
        """Comes after every callback of the fit that has just begun."""
        self._list = running = _running_list(self)
        if running is None:
            return
        places: list[keras.callbacks.Callback] = [_First(self)]
        for callback in _without_places(running, self):
            places.append(callback)
            if callback is not self and not isinstance(callback, _Place):
                places.append(_After(self, callback))
        # Not in place: Keras is on its way through the list.
        running.callbacks = [*places, _Last(self)]

    def _fit_callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks of the fit that runs, of which this is one; just this one out of a fit."""
        return [self] if self._list is None else self._list.callbacks

    def _leave_callbacks(self) -> None:
        """Takes the constraints off after all callbacks, and the places out of their list."""
        running, self._list = self._list, None
        self._finish()
        if running is not None:
            running.callbacks = _without_places(running, self)

    def _finish(self) -> None:
        """Takes the constraints off; the last thing in a fit."""
        self._attached.apply()
        self._detach()

    def _detach(self) -> None:
        if self._attached:
            self._attached.detach(self.model)

    def _hold_again(self) -> None:
        """Constrains the weights after another callback has had its turn."""
        self._attached.apply()

    def _hold_finally(self, other: keras.callbacks.Callback) -> None:
        """Constrains the weights after another callback has had its last turn."""
        self._attached.apply()

    def _log(self, logs: dict[str, Any] | None) -> None:
        """Corrects the logs before they are kept."""

    def _log_batch(self, logs: dict[str, Any] | None) -> None:
        """Corrects the logs of a batch."""


class _Place(keras.callbacks.Callback):
    """A place among the callbacks of a fit, where a callback applies its constraints."""

    def __init__(self, owner: HoldingCallback) -> None:
        super().__init__()
        self.owner = owner


class _First(_Place):
    """Comes before all callbacks of a fit."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        # What an optimizer with use_ema has just put in is the work of no callback.
        self.owner._hold_again()


class _After(_Place):
    """Comes after another callback, and constrains what that one has set."""

    def __init__(self, owner: HoldingCallback, other: keras.callbacks.Callback) -> None:
        super().__init__(owner)
        self._other = other

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.owner._log_batch(logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.owner._hold_again()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.owner._hold_again()
        self.owner._log(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.owner._hold_finally(self._other)


class _Last(_Place):
    """Comes after all callbacks of a fit."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.owner._leave_callbacks()


def _without_places(
    running: keras.callbacks.CallbackList, owner: HoldingCallback
) -> list[keras.callbacks.Callback]:
    """The callbacks of a fit, without the places that a callback has taken among them."""
    return [
        callback
        for callback in running.callbacks
        if not (isinstance(callback, _Place) and callback.owner is owner)
    ]


def _running_list(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """The list of callbacks that is calling this one.

    Keras shows it to no callback, so it is looked for among the callers of this function.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and caller.model is callback.model:
            return caller
        frame = frame.f_back
    return None


class KeepMasks(HoldingCallback):
    """Holds given masks on weights while a model trains.

    Unlike `KeepZeros` it does not read them from the zeros, so that a weight may live that is
    zero to begin with, as in a layer that is initialised with zeros.

    Args:
        variables: the weights; the model that trains may be another one that contains them.
        masks: bool arrays, one for each weight, True where it lives.
    """

    def __init__(self, variables: Sequence[keras.Variable], masks: Sequence[np.ndarray]) -> None:
        super().__init__()
        self._variables = list(variables)
        self._masks = list(masks)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the masks on."""
        self._detach()
        attached = AttachedMasks(self._variables)
        attached.assign(self._masks)
        self._enter_fit(attached)
        self._surround_callbacks()


class KeepingCallback(HoldingCallback):
    """Holds something that is true of the weights when training begins until it ends.

    A subclass makes the constraints, and reads from the weights what they hold. It reads at the
    first batch, so a restored checkpoint brings its own.

    Args:
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
    """

    def __init__(self, include: Picks = None, exclude: Picks = None) -> None:
        super().__init__()
        self.include = include
        self.exclude = exclude
        self._is_read = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the constraints on."""
        self._detach()
        self._is_read = False
        weights = prunable(self.model, self.include, self.exclude)
        self._enter_fit(
            self._constraints(variable for _, variable in weights if variable.trainable)
        )
        self._surround_callbacks()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads what is to be held."""
        # Not in on_train_begin: there a later callback may still restore weights.
        if not self._is_read:
            self._read()
            self._is_read = True

    def _constraints(self, variables: Iterable[keras.Variable]) -> AttachedConstraints[Any]:
        """The constraints on some weights; they hold nothing yet."""
        raise NotImplementedError

    def _read(self) -> None:
        """Reads from the weights what the constraints are to hold."""
        raise NotImplementedError


class KeepZeros(KeepingCallback):
    """Holds the weights that are zero when training begins at zero until it ends.

    This is how a pruned model is retrained: fine-tuned, or with its learning rate or its weights
    rewound (Renda et al. 2020, https://arxiv.org/abs/2003.02389). The masks are read from the
    zeros at the first batch, so a restored checkpoint brings its own; nothing stays in the model.
    The masks that an interrupted fit leaves come off when the next one begins.

    Example:
        ```python
        pruned = prune_once(model, 0.5)
        pruned.compile("adam", "mse")
        pruned.fit(x, y, callbacks=[KeepZeros()])
        ```

    Args:
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
    """

    _attached: AttachedMasks

    def _constraints(self, variables: Iterable[keras.Variable]) -> AttachedMasks:
        return AttachedMasks(variables)

    def _read(self) -> None:
        self._attached.assign([value != 0 for value in self._attached.values()])
