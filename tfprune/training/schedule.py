"""When masks change: tfmot's schedule objects, evaluated by step.

A schedule maps a step to (prune now?, sparsity). Step s is the state before the s-th update of the
weights, counted from 0, so `end_step` may equal the number of steps of the training.
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

# Steps between two updates of the masks, as in tfmot, and the number of updates of a shorter ramp.
_FREQUENCY = 100
_UPDATES = 20


class MaskUpdate(NamedTuple):
    """An update of the masks that a schedule asks for.

    Attributes:
        step: when the masks change.
        sparsity: the target sparsity of the update, 0 to 1.
    """

    step: int
    sparsity: float


def last_update(schedule: Schedule, last_step: int, step: int) -> MaskUpdate | None:
    """Finds the last update that a schedule asks for in the steps (last_step, step].

    Example:
        ```python
        schedule = constant_sparsity(0.5, begin=10, frequency=10)
        last_update(schedule, -1, 35)  # MaskUpdate(step=30, sparsity=0.5)
        last_update(schedule, 30, 35)  # None
        ```

    The `end_step` of a schedule is always an update: otherwise tfmot's schedules would never reach
    their target if `(end_step - begin_step) % frequency` is not 0.

    For a schedule with `begin_step` and `frequency`, the update follows from tfmot's rule without
    calls. Any other schedule is called for each step, from the last one backwards.

    Args:
        schedule: `tfmot.sparsity.keras.PolynomialDecay`, `ConstantSparsity`, or any callable that
            maps a step (int) to (prune now?, sparsity).
        last_step: the last step that was evaluated; -1 if there is none.
        step: the current step.

    Returns:
        The update, or None if the schedule asks for no update in these steps.

    Raises:
        UsageError: the schedule asks for a sparsity outside 0 to 1.
    """
    update_step = _last_update_step(schedule, last_step, step)
    if update_step is None:
        return None
    return MaskUpdate(update_step, sparsity_at(schedule, update_step))


def final_update(schedule: Schedule) -> MaskUpdate | None:
    """The update with which a schedule reaches its target.

    Example:
        ```python
        final_update(polynomial_decay(0.0, 0.8, begin=0, end=100))
        # MaskUpdate(step=100, sparsity=0.8)
        ```

    Returns:
        The update at `end_step`, or at `begin_step` for a schedule without an end; None for a
        callable that has neither.

    Raises:
        UsageError: the target is outside 0 to 1.
    """
    end = _end_step(schedule)
    step = getattr(schedule, "begin_step", None) if end is None else end
    return None if step is None else MaskUpdate(step, sparsity_at(schedule, step))


def sparsity_at(schedule: Schedule, step: int) -> float:
    """The sparsity that a schedule asks for at a step.

    Example:
        ```python
        sparsity_at(constant_sparsity(0.9), 0)  # 0.9
        ```

    Raises:
        UsageError: the sparsity is outside 0 to 1.
    """
    if step == _end_step(schedule) and hasattr(schedule, "final_sparsity"):
        # tfmot divides 0 by 0 here when begin_step equals end_step.
        value = schedule.final_sparsity
    else:
        value = schedule(step)[1]
    # tfmot returns float32, and float32(0.9) is a little less than 0.9, which may prune one weight
    # less. The shortest decimal of the float32 is the number that the user wrote.
    decimal = float(str(np.asarray(value)[()]))
    return check_sparsity(decimal, f"the schedule's sparsity at step {step}")


def check_sparsity(sparsity: Any, what: str = "sparsity") -> float:
    """Converts a sparsity to float and checks its range.

    Example:
        ```python
        check_sparsity(np.float64(0.5))  # 0.5
        ```

    Args:
        sparsity: the number to check.
        what: what the number is, for the error message.

    Raises:
        UsageError: the number is not from 0 to 1.
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
    """Makes tfmot's `PolynomialDecay`: sparsity rises fast at first, then slower.

    Example:
        ```python
        schedule = tfprune.polynomial_decay(0.0, 0.8, begin=0, end=1000)
        model.fit(x, y, callbacks=[tfprune.PruneWeights(schedule)])
        ```

    Args:
        initial: sparsity at the first update, 0 to 1.
        final: sparsity at the last update, 0 to 1 (exclusive).
        begin: step of the first update; before it, no weight is pruned.
        end: step of the last update.
        frequency: steps between two updates; None means `default_frequency(begin, end)`.
        power: exponent of the decay.

    Returns:
        A `tfmot.sparsity.keras.PolynomialDecay`.

    Raises:
        UsageError: tfmot refuses an argument.

    Source:
        Zhu & Gupta 2017, To prune, or not to prune, https://arxiv.org/abs/1710.01878.
    """
    return _from_tfmot(
        "PolynomialDecay",
        initial_sparsity=initial,
        final_sparsity=final,
        begin_step=begin,
        end_step=end,
        frequency=default_frequency(begin, end) if frequency is None else frequency,
        power=power,
    )


def default_frequency(begin: int, end: int) -> int:
    """The default number of steps between two updates of a ramp.

    Example:
        ```python
        default_frequency(0, 5000)  # 100
        default_frequency(10, 70)  # 3
        ```

    It is 100, as in tfmot, if the ramp has at least 20 updates then; else a twentieth of the ramp.
    Zhu and Gupta prune every 100 to 1000 steps of long trainings, so that the model recovers from
    each cut. A ramp that is shorter than the frequency would be a single cut.

    Args:
        begin: step of the first update.
        end: step of the last update.

    Returns:
        Steps, at least 1.

    Source:
        Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878.
    """
    return min(_FREQUENCY, max(1, (end - begin) // _UPDATES))


def single_cut_reason(schedule: Schedule) -> str | None:
    """Explains why a schedule makes a single cut although its sparsity should rise in steps.

    Example:
        ```python
        single_cut_reason(polynomial_decay(0.0, 0.8, begin=5, end=5))
        # "the schedule begins and ends at step 5, ..."
        ```

    Args:
        schedule: as for `last_update`.

    Returns:
        The reason, and what to do. None for a schedule with several cuts, for one with a single
        sparsity, such as `ConstantSparsity`, and for a callable without `begin_step`, `end_step`
        and `frequency`.
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
            f"{final:.3g} in one cut; give frequency={default_frequency(begin, end)}, or let it "
            "end later"
        )
    return None


def constant_sparsity(
    target: float, begin: int = 0, end: int = -1, frequency: int = _FREQUENCY
) -> Schedule:
    """Makes tfmot's `ConstantSparsity`: one cut at `begin`, and the same sparsity afterwards.

    Example:
        ```python
        schedule = constant_sparsity(0.8, begin=100)
        model.fit(x, y, callbacks=[tfprune.PruneWeights(schedule)])
        ```

    With the present sparsity of a model as target, it keeps the zeros in a further training.

    Args:
        target: the sparsity, 0 to 1 (exclusive).
        begin: step of the first update; before it, no weight is pruned.
        end: step of the last update, -1 for no end.
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


def _last_update_step(schedule: Schedule, last_step: int, step: int) -> int | None:
    begin, frequency = (getattr(schedule, name, None) for name in ("begin_step", "frequency"))
    end = _end_step(schedule)
    if end is not None and last_step < end <= step:
        return end
    if begin is not None and frequency is not None:
        stop = step if end is None else min(step, end)
        update = stop - (stop - begin) % frequency
        return update if update >= begin and update > last_step else None
    steps = range(step, last_step, -1)
    return next((candidate for candidate in steps if bool(schedule(candidate)[0])), None)


def _end_step(schedule: Schedule) -> int | None:
    end = getattr(schedule, "end_step", None)
    # tfmot writes -1 for "no end".
    return None if end is None or end < 0 else int(end)


def _from_tfmot(name: str, **arguments: float) -> Schedule:
    with _preserve_environment(_LEGACY_KERAS):
        import tensorflow_model_optimization as tfmot
    try:
        return getattr(tfmot.sparsity.keras, name)(**arguments)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


@contextmanager
def _preserve_environment(name: str) -> Iterator[None]:
    """Restores an environment variable, since importing tfmot turns `tf.keras` into Keras 2."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
