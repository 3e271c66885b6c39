"""Plans and rebuilds a slim model for any target, counted or measured."""

from __future__ import annotations

import keras

from tfprune import devices
from tfprune.data.adapting import Data
from tfprune.devices import Device
from tfprune.errors import UsageError
from tfprune.filters import Importance, RemovalPlan, rebuild, simplified
from tfprune.filters.plan import Names
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
    cycles: float | None = None,
    sram: float | str | None = None,
    flash: float | str | None = None,
    scope: Scope = "layer",
    importance: Importance = "l2",
    data: Data | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    rounds: int = 1,
    threads: int = 1,
    format: str = "tflite",
    device: str | Device | None = None,
) -> RemovalPlan:
    """Decides which channels to remove, without changing the model.

    Example:
        ```python
        plan = tfprune.plan(model, macs=0.5, importance="l1")
        plan.removed  # {"conv2d": [0, 7], ...}
        ```

    Give exactly one target: `filters`, `macs`, `params` and `dead` are counted in the model;
    `latency`, `milliseconds` and `bytes` are measured on exported files, and `cycles`, `sram` and
    `flash` are estimated by the compiler of a device.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: the share of the filters to keep, 0 to 1, in each channel group or in the whole
            model; see `scope`.
        macs: the share of the multiply-accumulates to keep, 0 to 1; all layers compete.
        params: the share of the parameters to keep, 0 to 1; all layers compete.
        dead: remove the channels that contribute nothing; no output changes.
        latency: the share of the present latency to keep, 0 to 1, measured with TFLite on this
            machine, or estimated for `device`.
        milliseconds: the time of one example: the median with TFLite on this machine, or the
            estimate for `device`.
        bytes: the size of the exported file.
        cycles: the share of the cycles of `device` to keep, 0 to 1.
        sram: the share of the peak of its on-chip memory to keep, 0 to 1; or bytes, as a number
            above 1 or a text such as `"64 KiB"`.
        flash: the share of the storage that the model takes on it to keep, 0 to 1; or bytes.
        scope: for `filters`: `"layer"` keeps the share in every channel group, `"global"` keeps the
            share of all removable filters.
        importance: how filters are ranked: a name in `tfprune.filters.IMPORTANCE`, such as `l2` or
            `taylor`, or a function that maps the `ChannelGroups` to one score for each unit, float
            (unit_count,).
        data: labelled training examples, which `taylor` needs: (x, y) or (x, y, sample weights) as
            `fit` takes them, a `tf.data.Dataset` or `keras.utils.PyDataset`, or any other form that
            `tfprune.data.examples` takes. A few hundred suffice: of data that are not arrays, the
            first 1,024 are read. Other tasks than classification need a model that is compiled
            with its loss.
        round_to: the size of a group that shrinks becomes a multiple of this, since runtimes
            compute in tiles.
        minimum: channels that each group keeps at least, if it has as many.
        exclude: layers that keep all their channels, together with all layers of the same channel
            groups: names, paths, globs such as `"conv*"`, or the name of a nested model.
        rounds: for a counted share: how often filters are ranked. The share falls in this number of
            geometric steps, and each step ranks the filters of the model that the step before
            leaves (Molchanov et al. 2017).
        threads: for a target that is measured here: threads of the TFLite interpreter.
        format: for a target that is measured here: `"tflite"` or `"tflite-int8"`.
        device: for `cycles`, `latency`, `milliseconds`, `sram` and `flash`: the device whose
            compiler estimates them, such as `"ethos-u55-128"`, or what
            `tfprune.devices.find_device` returned for a name with options.

    Returns:
        The plan for `tfprune.filters.rebuild`. For a measured target it is a
        `tfprune.devices.MeasuredPlan` with the measured figures.

    Raises:
        UsageError: there is not exactly one target; the target is out of range or out of reach; an
            option has no meaning for it; it is a device's and none is given, or the device's
            compiler is not installed; nothing can be removed from the model, its MACs cannot be
            counted, or it has no graph; a layer or importance is unknown; or data is missing.
        TfpruneError: for a measured target: the model cannot be exported, or the timings vary too
            much.
    """
    target = Target.of(
        filters=filters,
        macs=macs,
        params=params,
        dead=dead,
        latency=latency,
        milliseconds=milliseconds,
        bytes=bytes,
        cycles=cycles,
        sram=sram,
        flash=flash,
    )
    if target.measured:
        _check_unused(f"the target {target.name}", scope=(scope, "layer"), rounds=(rounds, 1))
        found = devices.find_device(device) if isinstance(device, str) else device
        devices.check_target(target.name, found)
        if found is not None:
            _check_unused(f"device {found.name}", threads=(threads, 1), format=(format, "tflite"))
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
            device=found,
        )
    about = f"the target {target.name}"
    _check_unused(about, threads=(threads, 1), format=(format, "tflite"), device=(device, None))
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


def _check_unused(about: str, **options: tuple[object, object]) -> None:
    """Refuses options that differ from their default but have no meaning for something."""
    for name, (value, default) in options.items():
        if value != default:
            raise UsageError(f"{name} has no meaning for {about}: leave it out")


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
    cycles: float | None = None,
    sram: float | str | None = None,
    flash: float | str | None = None,
    scope: Scope = "layer",
    importance: Importance = "l2",
    data: Data | None = None,
    round_to: int = 1,
    minimum: int = 1,
    exclude: Names = (),
    rounds: int = 1,
    threads: int = 1,
    format: str = "tflite",
    device: str | Device | None = None,
) -> keras.Model:
    """Rebuilds a model without its least important channels.

    Example:
        ```python
        half = tfprune.slim(model, macs=0.5)  # half of the multiply-accumulates
        fast = tfprune.slim(model, latency=0.5)  # half of TFLite's time on this machine
        npu = tfprune.slim(model, cycles=0.5, device="ethos-u55-128")  # of an NPU's cycles
        same = tfprune.slim(model, dead=True)  # without dead channels; same outputs
        ```

    Give exactly one target.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        filters: the share of the filters to keep, 0 to 1, in each channel group or in the whole
            model; see `scope`.
        macs: the share of the multiply-accumulates to keep, 0 to 1; all layers compete.
        params: the share of the parameters to keep, 0 to 1; all layers compete.
        dead: remove the channels and residual blocks that contribute nothing, and fold constants;
            no output changes.
        latency: the share of the present latency to keep, 0 to 1, measured with TFLite on this
            machine, or estimated for `device`.
        milliseconds: the time of one example: the median with TFLite on this machine, or the
            estimate for `device`.
        bytes: the size of the exported file.
        cycles: the share of the cycles of `device` to keep, 0 to 1.
        sram: the share of the peak of its on-chip memory to keep, 0 to 1; or bytes, as a number
            above 1 or a text such as `"64 KiB"`.
        flash: the share of the storage that the model takes on it to keep, 0 to 1; or bytes.
        scope: for `filters`: `"layer"` keeps the share in every channel group, `"global"` keeps the
            share of all removable filters.
        importance: how filters are ranked: a name in `tfprune.filters.IMPORTANCE`, such as `l2` or
            `taylor`, or a function that maps the `ChannelGroups` to one score for each unit, float
            (unit_count,).
        data: labelled training examples, which `taylor` needs: (x, y) or (x, y, sample weights) as
            `fit` takes them, a `tf.data.Dataset` or `keras.utils.PyDataset`, or any other form that
            `tfprune.data.examples` takes. A few hundred suffice: of data that are not arrays, the
            first 1,024 are read. Other tasks than classification need a model that is compiled
            with its loss.
        round_to: the size of a group that shrinks becomes a multiple of this, since runtimes
            compute in tiles.
        minimum: channels that each group keeps at least, if it has as many.
        exclude: layers that keep all their channels, together with all layers of the same channel
            groups: names, paths, globs such as `"conv*"`, or the name of a nested model.
        rounds: for a counted share: how often filters are ranked. The share falls in this number of
            geometric steps, and each step ranks the filters of the model that the step before
            leaves (Molchanov et al. 2017).
        threads: for a target that is measured here: threads of the TFLite interpreter.
        format: for a target that is measured here: `"tflite"` or `"tflite-int8"`.
        device: for `cycles`, `latency`, `milliseconds`, `sram` and `flash`: the device whose
            compiler estimates them, such as `"ethos-u55-128"`, or what
            `tfprune.devices.find_device` returned for a name with options.

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
            cycles=cycles,
            sram=sram,
            flash=flash,
            scope=scope,
            importance=importance,
            data=data,
            round_to=round_to,
            minimum=minimum,
            exclude=exclude,
            rounds=rounds,
            threads=threads,
            format=format,
            device=device,
        )
    )
