"""`tfprune.LearnStructure`: learns which channels a model can do without, for every target."""

from __future__ import annotations

from typing import Any

from tfprune import devices
from tfprune.data.adapting import Data
from tfprune.devices import Device, Measured
from tfprune.devices.learning import DeviceTarget
from tfprune.errors import UsageError
from tfprune.filters import Importance, StructureLearner, Target
from tfprune.filters.stages import Counted
from tfprune.model.group_lasso import GroupLasso


class LearnStructure(StructureLearner):
    """Trains so that whole channels become exactly zero, under group lasso or up to a target.

    One group is everything that makes a removable channel: its filter in each of the coupled
    layers, its biases, and its BatchNorm gamma and beta. After every update, inside the compiled
    step, each group is moved by the proximal step of `GroupLasso`; the loss itself carries no
    penalty. A group that reaches zero contributes nothing, so `tfprune.slim(model, dead=True)`
    removes it for free.

    A filter before BatchNorm has a direction but no scale: shrinking it changes no output, and
    only makes its next steps larger, until training breaks down. So the norm of a group, and the
    shrinkage, are those of the weights that carry its scale (gamma and beta, or the filter and bias
    where no BatchNorm follows); the filters before BatchNorm become zero when their group does.

    The strength is given, or found from a target: `macs=0.5` keeps half of the MACs.
    What is left of them then falls by tfmot's `PolynomialDecay` from `begin` to `end` of the
    training. In each stage of it, the channels that a plan for the stage would remove get, each,
    the strength that takes its norm to zero by the end of the stage, as a growing penalty would;
    the plan is made anew for the next. So the strength is bounded by what the norm is, the target
    is met when `end` comes, and the rest of the training is for those that live.

    Use it as a callback of any `model.fit`. Nothing of it remains in the model afterwards.

    Example:
        ```python
        model.fit(x, y, epochs=10, callbacks=[LearnStructure(macs=0.5)])
        slim = tfprune.slim(model, dead=True)
        LearnStructure(cycles=0.5, device="ethos-u55-128")  # for an NPU
        ```

    Args:
        penalty: the regularizer whose proximal step is taken, or its strength, for all channels
            alike; with a target, it ends when that is met. Its groups are `filter`, or `depth`:
            then whole residual branches become zero, for `tfprune.slim(model, dead=True)` to
            remove.
        filters: the share of the removable channels to keep, 0 to 1.
        macs: the share of the multiply-accumulates to keep, instead.
        params: the share of the parameters to keep, instead.
        cycles: the share of the cycles of `device` to keep, instead.
        latency: the share of the time on it to keep, instead.
        milliseconds: the time of one example on it, instead.
        sram: the share of the peak of its on-chip memory to keep, instead; or bytes, as a number
            above 1 or a text such as `"64 KiB"`.
        flash: the share of the storage that the model takes on it to keep, instead; or bytes.
        device: for the five above: the device whose compiler estimates them, such as
            `"ethos-u55-128"`, or what `tfprune.devices.find_device` returned for a name with
            options. The share is one of the model as `fit` gets it; its int8 file is compiled
            before the training, in the last stage and at the end, and `reached` has the figures.
        importance: what the plans of a target go by; see `tfprune.slim`. `taylor` takes the
            gradients of the training itself: the squares of each update's gradient times weight,
            summed since the plan before. A stage at the beginning of an epoch only collects them.
        data: labelled training examples for an importance of your own that looks at some; see
            `tfprune.slim`. `taylor` needs none here.
        round_to: the sizes of groups become multiples of this where they shrink for a target.
        begin: the share of the training after which channels begin to go, 0 to 1.
        end: the share of the training at which the target is met, at the latest three stages later.
        frequency: updates in a stage.

    Raises:
        UsageError: no strength and no target, two targets or one out of range, the penalty groups
            something other than filters, a device without a target that it tells, or such a target
            without a device; or, when training begins, the model has no graph or no removable
            channel, the target is out of reach or met already, the device's compiler is not
            installed, or the length of the training is open.
        TfpruneError: when training begins, the model cannot be exported for the device.

    Source:
        Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks; Yuan & Lin 2006;
        Parikh & Boyd 2014 for the proximal step; Wang et al. 2021, Neural Pruning via Growing
        Regularization; Zhu & Gupta 2017 for the course of the target.
    """

    def __init__(
        self,
        penalty: GroupLasso | float | None = None,
        *,
        filters: float | None = None,
        macs: float | None = None,
        params: float | None = None,
        cycles: float | None = None,
        latency: float | None = None,
        milliseconds: float | None = None,
        sram: float | str | None = None,
        flash: float | str | None = None,
        device: str | Device | None = None,
        importance: Importance = "lasso",
        data: Data | None = None,
        round_to: int = 1,
        begin: float = 0.0,
        end: float = 0.5,
        frequency: int = 100,
    ) -> None:
        targets: dict[str, Any] = {
            "filters": filters,
            "macs": macs,
            "params": params,
            "cycles": cycles,
            "latency": latency,
            "milliseconds": milliseconds,
            "sram": sram,
            "flash": flash,
        }
        given = any(value is not None for value in targets.values())
        target = Target.of(**targets) if given else None
        super().__init__(
            penalty,
            target=None if target is None else _open(target, device, round_to),
            importance=importance,
            data=data,
            begin=begin,
            end=end,
            frequency=frequency,
        )
        if device is not None and (target is None or not target.measured):
            raise UsageError(
                "device is for a target that it tells, such as cycles=0.5: give one, or leave the "
                "device out"
            )

    @property
    def reached(self) -> Measured | None:
        """The device's figures of the model as the training left it, without its dead channels.

        None before the end of the training, and without a target of a device.
        """
        return self.target.reached if isinstance(self.target, DeviceTarget) else None


def _open(target: Target, device: str | Device | None, round_to: int) -> Counted | DeviceTarget:
    if not target.measured:
        return Counted(target, round_to)
    if device is None:
        raise UsageError(
            f"{target.name} is learnt for a device: give one whose compiler estimates it, such as "
            "ethos-u55-128"
        )
    found = devices.find_device(device) if isinstance(device, str) else device
    return DeviceTarget(target, found, round_to)
