"""Takes masks off a model that a fit has left with them, when it trains again.

No callback hears of an error or an interrupt in `fit`, so the masks of that fit stay on. Keras
asks the model for its train function first thing in every training; while a fit holds masks, the
model answers with a `_Guard`, which knows that a second question means a second training. Who
asks for a new one by force is another callback of the same fit, such as `LearnStructure`.
"""

from __future__ import annotations

from typing import Any

import keras

from tfprune.weights.held import HeldMasks

_NAME = "make_train_function"


class _Guard:
    """Stands in for a model's `make_train_function`."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.held: list[HeldMasks] = []

    def __call__(self, force: bool = False) -> Any:
        if force:
            return type(self.model).make_train_function(self.model, force=True)
        self.let_go()
        # A step traced with the masks would go on applying them.
        return self.model.make_train_function(force=True)

    def let_go(self) -> None:
        """Takes all masks off."""
        for held in self.held:
            held.release()
        delattr(self.model, _NAME)


def begin(model: keras.Model, held: HeldMasks) -> None:
    """Traces the model's step anew, with its masks, which come off should the fit break down.

    Args:
        model: in `fit`, about to train.
        held: the masks that this fit has put on.
    """
    guard = vars(model).get(_NAME)
    if not isinstance(guard, _Guard):
        guard = _Guard(model)
        setattr(model, _NAME, guard)
    if held not in guard.held:
        guard.held.append(held)
    # fit has made its train function before it calls its callbacks, and would run that one.
    type(model).make_train_function(model, force=True)


def let_go(model: keras.Model) -> None:
    """Takes off the masks that a fit of a model has left, if one has.

    Args:
        model: about to be trained by hand.
    """
    guard = vars(model).get(_NAME)
    if isinstance(guard, _Guard):
        guard.let_go()


def end(model: keras.Model, held: HeldMasks) -> None:
    """Forgets masks that have come off.

    Args:
        model: the model they were on.
        held: the masks; those that `begin` does not know are none of its business.
    """
    model.train_function = None
    guard = vars(model).get(_NAME)
    if isinstance(guard, _Guard):
        guard.held = [each for each in guard.held if each is not held]
        if not guard.held:
            delattr(model, _NAME)
