"""When masks change: tfmot's schedule objects, read by steps instead of by calls.

A schedule maps a step to (prune now?, sparsity). Step s is the state before the s-th update of
the weights, counted from 0, so `end_step` may equal the number of steps of the training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tfprune.errors import UsageError

Schedule: TypeAlias = Callable[[int], tuple[Any, Any]]

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"

# Steps between two updates, as in tfmot, and how many updates a shorter ramp has.
_FREQUENCY = 100
_UPDATES = 20


class Due(NamedTuple):
    """An update of the masks that a schedule asks for."""

    step: int
    sparsity: float


def due(schedule: Schedule, last_step: int, step: int) -> Due | None:
    """Finds the last update that a schedule asks for in the steps (last_step, step].

    The schedule's `end_step` always counts as an update: tfmot's schedules whose
    `(end_step - begin_step) % frequency` is not 0 would never reach their target.

    A schedule with `begin_step` and `frequency` is taken to follow tfmot's rule, which is then
    computed instead of called; any other is called with each step, from the last backwards.

    Args:
        schedule: `tfmot.sparsity.keras.PolynomialDecay`, `ConstantSparsity`, or any callable
            from a step (int) to (prune now?, sparsity).
        last_step: the last step looked at; -1 if none was.
        step: the step now.

    Returns:
        The step and the sparsity it asks for, or None if none of the steps asks for any.

    Raises:
        UsageError: the schedule asks for a sparsity outside 0 to 1.
    """
    found = _last_due_step(schedule, last_step, step)
    return None if found is None else Due(found, sparsity_at(schedule, found))


def arrival(schedule: Schedule) -> Due | None:
    """Tells when a schedule reaches its target, and which; None if the schedule cannot tell.

    It is the `end_step`, or for a schedule without an end the `begin_step`.

    Raises:
        UsageError: that target is outside 0 to 1.
    """
    end = _end_step(schedule)
    step = getattr(schedule, "begin_step", None) if end is None else end
    return None if step is None else Due(step, sparsity_at(schedule, step))


def sparsity_at(schedule: Schedule, step: int) -> float:
    """Asks a schedule for its sparsity at a step.

    Raises:
        UsageError: it is outside 0 to 1.
    """
    if step == _end_step(schedule) and hasattr(schedule, "final_sparsity"):
        # tfmot divides 0 by 0 here when begin_step equals end_step.
        value = schedule.final_sparsity
    else:
        value = schedule(step)[1]
    # tfmot answers in float32, where 0.9 is less than 0.9 and can round to a weight fewer; the
    # shortest decimal of the number is what the user wrote.
    decimal = float(str(np.asarray(value)[()]))
    return check_sparsity(decimal, f"the schedule's sparsity at step {step}")


def check_sparsity(sparsity: Any, what: str = "sparsity") -> float:
    """Returns a sparsity as a float, or says what is wrong with it.

    Raises:
        UsageError: it is no number from 0 to 1.
    """
    value = float(sparsity)
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"{what} is {value:g}; it is a share of the weights, from 0 to 1")
    return value


def polynomial_decay(
    initial: float,
    final: float,
    begin: int,
    end: int,
    frequency: int | None = None,
    power: float = 3,
) -> Schedule:
    """Makes tfmot's `PolynomialDecay`: fast at first, slower towards the target.

    Zhu and Gupta 2017, "To prune, or not to prune" (arXiv:1710.01878).

    Args:
        initial: sparsity at the first update, 0 to 1.
        final: sparsity at the last one, 0 to 1 (exclusive).
        begin: step of the first update; the weights are dense before it.
        end: step of the last one.
        frequency: steps between two updates; `frequency_of` the ramp if not given.
        power: exponent of the decay.

    Returns:
        A `tfmot.sparsity.keras.PolynomialDecay`.

    Raises:
        UsageError: tfmot refuses an argument.
    """
    return _from_tfmot(
        "PolynomialDecay",
        initial_sparsity=initial,
        final_sparsity=final,
        begin_step=begin,
        end_step=end,
        frequency=frequency_of(begin, end) if frequency is None else frequency,
        power=power,
    )


def frequency_of(begin: int, end: int) -> int:
    """Tells how many steps apart the updates of a ramp are where nothing is said.

    100, as in tfmot, where the ramp is long enough for 20 updates; else a twentieth of it. Zhu and
    Gupta 2017 (arXiv:1710.01878) prune every 100 to 1000 steps of long trainings, so that the net
    recovers from each cut; a ramp that is shorter than the frequency would be a single one.

    Args:
        begin: step of the first update.
        end: step of the last one.

    Returns:
        Steps, at least 1.
    """
    return min(_FREQUENCY, max(1, (end - begin) // _UPDATES))


def jump(schedule: Schedule) -> str | None:
    """Tells why a schedule that ought to rise step by step makes a single cut instead.

    Args:
        schedule: as of `due`. One with a single sparsity, such as `ConstantSparsity`, is one cut
            by design; of a bare callable nothing is known.

    Returns:
        The reason in words, and what to do; None if there is nothing to say.
    """
    begin, end = getattr(schedule, "begin_step", None), _end_step(schedule)
    frequency = getattr(schedule, "frequency", None)
    if begin is None or end is None or frequency is None:
        return None
    final = sparsity_at(schedule, end)
    if end > begin:
        first = sparsity_at(schedule, begin)
    else:
        # tfmot divides 0 by 0 here.
        first = float(getattr(schedule, "initial_sparsity", final))
    if first >= final:
        return None
    if end == begin:
        return (
            f"the schedule begins and ends at step {begin}, so the sparsity goes from "
            f"{first:.3g} to {final:.3g} in one cut; let it end later, or use "
            "constant_sparsity"
        )
    if frequency >= end - begin:
        return (
            f"the frequency of {frequency} steps is not less than the {end - begin} steps from the "
            f"begin to the end of the schedule, so the sparsity goes from {first:.3g} to "
            f"{final:.3g} in one cut; give frequency={frequency_of(begin, end)}, or let it end "
            "later"
        )
    return None


def constant_sparsity(
    target: float, begin: int = 0, end: int = -1, frequency: int = _FREQUENCY
) -> Schedule:
    """Makes tfmot's `ConstantSparsity`: one cut at `begin`, held from then on.

    With the sparsity that a model has already, it keeps the model's zeros in a further training.

    Args:
        target: the sparsity, 0 to 1 (exclusive).
        begin: step of the first update; the weights are dense before it.
        end: step of the last one, -1 for no end.
        frequency: steps between two updates.

    Returns:
        A `tfmot.sparsity.keras.ConstantSparsity`.

    Raises:
        UsageError: tfmot refuses an argument.
    """
    return _from_tfmot(
        "ConstantSparsity",
        target_sparsity=target,
        begin_step=begin,
        end_step=end,
        frequency=frequency,
    )


def _last_due_step(schedule: Schedule, last_step: int, step: int) -> int | None:
    begin, frequency = (getattr(schedule, name, None) for name in ("begin_step", "frequency"))
    end = _end_step(schedule)
    if end is not None and last_step < end <= step:
        return end
    if begin is not None and frequency is not None:
        stop = step if end is None else min(step, end)
        found = stop - (stop - begin) % frequency
        return found if found >= begin and found > last_step else None
    steps = range(step, last_step, -1)
    return next((each for each in steps if bool(schedule(each)[0])), None)


def _end_step(schedule: Schedule) -> int | None:
    end = getattr(schedule, "end_step", None)
    # tfmot writes -1 for "no end".
    return None if end is None or end < 0 else int(end)


def _from_tfmot(name: str, **arguments: float) -> Schedule:
    with _environment_kept(_LEGACY_KERAS):
        import tensorflow_model_optimization as tfmot
    try:
        return getattr(tfmot.sparsity.keras, name)(**arguments)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


@contextmanager
def _environment_kept(name: str) -> Iterator[None]:
    """Puts an environment variable back: importing tfmot turns `tf.keras` into Keras 2."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
