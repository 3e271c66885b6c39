"""Masks that hold to the very end of a fit, whatever the callbacks beside them do.

Callbacks set weights: averages are put in at the end of an epoch or for a validation, the best
weights are put back at the end of the training. Which of them comes first is up to whoever writes
the list. So a `Holding` callback takes a place behind each callback of the running fit, at which it
masks the weights again, and a last one, at which it takes the masks off.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import keras

from tfprune.weights import guard
from tfprune.weights.held import HeldMasks


class Holding(keras.callbacks.Callback):
    """A callback that holds masks while a model trains, and leaves nothing in it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self._held = HeldMasks()
        self._running: keras.callbacks.CallbackList | None = None

    def _hold(self, held: HeldMasks) -> None:
        """Puts masks to work in the fit that has just begun, or goes on."""
        self._held = held
        guard.begin(self.model, held)

    def _watch(self) -> None:
        """Comes after every callback of the fit that has just begun."""
        self._running = running = _running(self)
        if running is None:
            return
        places: list[keras.callbacks.Callback] = [_First(self)]
        for callback in _without(running, self):
            places.append(callback)
            if callback is not self and not isinstance(callback, _Place):
                places.append(_After(self, callback))
        # Not in place: Keras is on its way through the list.
        running.callbacks = [*places, _Last(self)]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Masks what another callback put into the weights, such as averages."""
        self._held.apply()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Masks what is left in the weights, and takes the masks off once no callback follows."""
        # An optimizer with use_ema has just put averages in, which are not zero.
        self._held.apply()
        if self._running is None:
            self._close()

    def _close(self) -> None:
        """Takes the masks off; the last thing in a fit."""
        self._held.apply()
        self._release()

    def _release(self) -> None:
        if self._held:
            self._held.release()
            guard.end(self.model, self._held)

    def _again(self) -> None:
        """Masks the weights after another callback has had its turn."""
        self._held.apply()

    def _ended(self, after: keras.callbacks.Callback) -> None:
        """Masks the weights after another callback has done its last."""
        self._held.apply()

    def _log(self, logs: dict[str, Any] | None) -> None:
        """Corrects the logs before they are kept."""

    def _log_batch(self, logs: dict[str, Any] | None) -> None:
        """Corrects the logs of a batch."""


class _Place(keras.callbacks.Callback):
    """A place among the callbacks of a fit, at which masks are applied for another callback."""

    def __init__(self, owner: Holding) -> None:
        super().__init__()
        self.owner = owner


class _First(_Place):
    """Comes before all callbacks of a fit."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        # What an optimizer with use_ema has just put in is the work of no callback.
        self.owner._again()


class _After(_Place):
    """Comes after another callback, and masks what that one has set."""

    def __init__(self, owner: Holding, other: keras.callbacks.Callback) -> None:
        super().__init__(owner)
        self._other = other

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.owner._log_batch(logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.owner._again()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.owner._again()
        self.owner._log(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.owner._ended(self._other)


class _Last(_Place):
    """Comes after all callbacks of a fit."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        running, self.owner._running = self.owner._running, None
        self.owner._close()
        if running is not None:
            running.callbacks = _without(running, self.owner)


def beside(callback: Holding) -> list[keras.callbacks.Callback]:
    """The callbacks of the fit that runs, of which this is one; just this one out of a fit."""
    return [callback] if callback._running is None else callback._running.callbacks


def _without(
    running: keras.callbacks.CallbackList, owner: Holding
) -> list[keras.callbacks.Callback]:
    """The callbacks of a fit, without what this one has put among them."""
    return [
        each for each in running.callbacks if not (isinstance(each, _Place) and each.owner is owner)
    ]


def _running(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """The list of callbacks that is calling this one.

    Keras shows it to no callback, so it is looked for among those who wait for this call to end.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and caller.model is callback.model:
            return caller
        frame = frame.f_back
    return None
