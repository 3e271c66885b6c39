"""From a Keras model to a slimmer one, for every target: counted ones and measured ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Literal, TypedDict, Unpack

import keras

from tfprune import devices, filters
from tfprune.errors import UsageError
from tfprune.filters.gradients import LabelledImages
from tfprune.filters.limits import Names

COUNTED = ("filters", "macs", "params", "dead")
"""The targets that are told from the model."""
MEASURED = ("latency", "milliseconds", "bytes")
"""The targets that are measured on exported files."""


class Options(TypedDict, total=False):
    """What can be asked for: the arguments of `tfprune.filters.plan` and `tfprune.devices.plan`."""

    filters: float | None
    macs: float | None
    params: float | None
    dead: bool
    latency: float | None
    milliseconds: float | None
    bytes: int | None
    scope: Literal["layer", "global"]
    importance: filters.Importance
    data: LabelledImages | None
    round_to: int
    minimum: int
    exclude: Names
    rounds: int
    threads: int
    format: str


def plan(model: keras.Model, **options: Unpack[Options]) -> filters.RemovalPlan:
    """Decides which channels go, and changes nothing.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        **options: exactly one target, and how to reach it. `filters`, `macs`, `params` and `dead`
            are told from the model, with the other arguments of `tfprune.filters.plan`; `latency`,
            `milliseconds` and `bytes` are measured on exported files, with the other arguments of
            `tfprune.devices.plan`.

    Returns:
        The plan; for a measured target with the figures that were measured.

    Raises:
        UsageError: not exactly one target, one out of range or out of reach, an option that the
            target does not take, or a model without a graph.
        TfpruneError: for a measured target, the model cannot be exported.
    """
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(f"slim got an unexpected keyword argument {name!r}")
    said = {name: options.get(name) for name in COUNTED + MEASURED}
    # Zero equals False, and is a target, if a wrong one.
    targets = [name for name, value in said.items() if value is not None and value is not False]
    measured = [name for name in targets if name in MEASURED]
    if len(targets) != 1:
        raise UsageError(
            f"give slim exactly one of {', '.join(COUNTED + MEASURED)}, "
            f"not {' and '.join(targets) or 'none'}"
        )
    decide: Callable[..., filters.RemovalPlan] = devices.plan if measured else filters.plan
    unset = set(COUNTED + MEASURED) - set(targets)
    given = {name: value for name, value in options.items() if name not in unset}
    taken = inspect.signature(decide).parameters
    for name in given:
        if name not in taken:
            raise UsageError(f"{name} has no meaning for the target {targets[0]}: leave it out")
    return decide(model, **given)


def slim(model: keras.Model, **options: Unpack[Options]) -> keras.Model:
    """Rebuilds a model without its least important channels.

    Half of the MACs: `slim(model, macs=0.5)`. Half of the time that TFLite takes on this machine:
    `slim(model, latency=0.5)`. What contributes nothing, residual blocks included, which changes
    no output: `slim(model, dead=True)`.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        **options: as for `plan`, which tells beforehand what would go.

    Returns:
        An ordinary Keras model with fewer channels, the same layer names, inputs and outputs.

    Raises:
        UsageError: as `plan`.
        TfpruneError: as `plan`.
    """
    if options.get("dead"):
        model, _ = filters.simplified(model)
    return filters.rebuild(plan(model, **options))
