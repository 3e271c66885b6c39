"""From a Keras model to a slimmer one, for every target: counted ones and measured ones."""

from __future__ import annotations

import keras

from tfprune import devices
from tfprune.errors import UsageError
from tfprune.filters import Importance, RemovalPlan, rebuild, simplified
from tfprune.filters.importance import LabelledImages
from tfprune.filters.limits import Names
from tfprune.filters.targets import Target, plan_counted
from tfprune.vocabulary import Scope


def plan(
    model: keras.Model,
    *,
    filters: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    dead: bool = False,
    latency: float | None = None,
    milliseconds: float | None = None,
    bytes: int | None = None,
    scope: Scope = "layer",
    importance: Importance = "l2",
    data: LabelledImages | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    rounds: int = 1,
    threads: int = 1,
    format: str = "tflite",
) -> RemovalPlan:
    """Decides which channels go, and changes nothing.

    Example:
        ```python
        plan = tfprune.plan(model, macs=0.5, importance="l1")
        plan.removed  # {"conv2d": [0, 7], ...}
        ```

    Give exactly one target: `filters`, `macs`, `params` and `dead` are counted in the model;
    `latency`, `milliseconds` and `bytes` are measured on exported files.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: the share of the filters to keep, 0 to 1; `scope` says of which.
        macs: the share of the multiply-accumulates to keep; filters compete across all layers.
        params: the share of the parameters to keep; filters compete across all layers.
        dead: remove the channels that contribute nothing, which changes no output.
        latency: the share of the present latency to keep, measured with TFLite on this machine.
        milliseconds: the median time of one example with TFLite on this machine.
        bytes: the size of the exported file.
        scope: for `filters`: `"layer"` keeps the share in every channel group, `"global"` keeps it
            of all removable filters together.
        importance: how filters are ranked: a name in `tfprune.filters.IMPORTANCE`, such as `l2` or
            `taylor`, or a function of the `ChannelGroups` that returns one score for each unit,
            float (unit_count,).
        data: labelled training images, which `taylor` needs: float or uint8 (n, ...) images as the
            model takes them, and int (n,) labels. A few hundred suffice.
        round_to: sizes become multiples of this where they shrink; runtimes work in tiles.
        minimum: channels that each group keeps at least, where it has so many.
        exclude: layers that keep all their channels, and so do those coupled with them: names,
            paths, globs of these such as `"conv*"`, or the name of a nested model.
        rounds: for a share that is counted: how often filters are ranked. The share is approached
            in so many geometric steps, each ranked anew on the model that the step before would
            leave (Molchanov et al. 2017).
        threads: for a target that is measured: threads of the TFLite interpreter.
        format: for a target that is measured: `"tflite"` or `"tflite-int8"`.

    Returns:
        The plan, for `tfprune.filters.rebuild`; for a measured target it is a
        `tfprune.devices.MeasuredPlan`, with the figures.

    Raises:
        UsageError: not exactly one target, one that is out of range or out of reach, an option that
            has no meaning for it, a model of which nothing can be removed or whose MACs cannot be
            counted, an unknown layer or importance, missing data, or a model without a graph.
        TfpruneError: for a measured target: the model cannot be exported, or the machine is too
            unsteady.
    """
    target = Target.of(
        filters=filters,
        macs=macs,
        params=params,
        dead=dead,
        latency=latency,
        milliseconds=milliseconds,
        bytes=bytes,
    )
    if target.measured:
        _check_unused(target, scope=(scope, "layer"), rounds=(rounds, 1))
        return devices.plan(
            model,
            target,
            importance=importance,
            data=data,
            round_to=round_to,
            minimum=minimum,
            exclude=exclude,
            threads=threads,
            format=format,
        )
    _check_unused(target, threads=(threads, 1), format=(format, "tflite"))
    return plan_counted(
        model,
        target,
        scope=scope,
        importance=importance,
        data=data,
        round_to=round_to,
        minimum=minimum,
        exclude=exclude,
        rounds=rounds,
    )


def _check_unused(target: Target, **options: tuple[object, object]) -> None:
    """Refuses options that have no meaning for a target, where they are not the default."""
    for name, (value, default) in options.items():
        if value != default:
            raise UsageError(f"{name} has no meaning for the target {target.name}: leave it out")


def slim(
    model: keras.Model,
    *,
    filters: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    dead: bool = False,
    latency: float | None = None,
    milliseconds: float | None = None,
    bytes: int | None = None,
    scope: Scope = "layer",
    importance: Importance = "l2",
    data: LabelledImages | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    rounds: int = 1,
    threads: int = 1,
    format: str = "tflite",
) -> keras.Model:
    """Rebuilds a model without its least important channels.

    Example:
        ```python
        half = tfprune.slim(model, macs=0.5)  # half of the multiply-accumulates
        fast = tfprune.slim(model, latency=0.5)  # half of TFLite's time on this machine
        same = tfprune.slim(model, dead=True)  # what contributes nothing goes; same outputs
        ```

    Give exactly one target.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: the share of the filters to keep, 0 to 1; `scope` says of which.
        macs: the share of the multiply-accumulates to keep; filters compete across all layers.
        params: the share of the parameters to keep; filters compete across all layers.
        dead: remove the channels that contribute nothing, residual blocks included, and fold
            constants, which changes no output.
        latency: the share of the present latency to keep, measured with TFLite on this machine.
        milliseconds: the median time of one example with TFLite on this machine.
        bytes: the size of the exported file.
        scope: for `filters`: `"layer"` keeps the share in every channel group, `"global"` keeps it
            of all removable filters together.
        importance: how filters are ranked: a name in `tfprune.filters.IMPORTANCE`, such as `l2` or
            `taylor`, or a function of the `ChannelGroups` that returns one score for each unit,
            float (unit_count,).
        data: labelled training images, which `taylor` needs: float or uint8 (n, ...) images as the
            model takes them, and int (n,) labels. A few hundred suffice.
        round_to: sizes become multiples of this where they shrink; runtimes work in tiles.
        minimum: channels that each group keeps at least, where it has so many.
        exclude: layers that keep all their channels, and so do those coupled with them: names,
            paths, globs of these such as `"conv*"`, or the name of a nested model.
        rounds: for a share that is counted: how often filters are ranked. The share is approached
            in so many geometric steps, each ranked anew on the model that the step before would
            leave (Molchanov et al. 2017).
        threads: for a target that is measured: threads of the TFLite interpreter.
        format: for a target that is measured: `"tflite"` or `"tflite-int8"`.

    Returns:
        An ordinary Keras model with fewer channels, the same layer names, inputs and outputs.

    Raises:
        UsageError: as `plan`.
        TfpruneError: as `plan`.
    """
    if dead:
        model, _ = simplified(model)
    return rebuild(
        plan(
            model,
            filters=filters,
            macs=macs,
            params=params,
            dead=dead,
            latency=latency,
            milliseconds=milliseconds,
            bytes=bytes,
            scope=scope,
            importance=importance,
            data=data,
            round_to=round_to,
            minimum=minimum,
            exclude=exclude,
            rounds=rounds,
            threads=threads,
            format=format,
        )
    )
