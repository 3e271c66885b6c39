"""Steps that remove whole filters: `learn` makes them zero, `slim` rebuilds without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tfprune.errors import UsageError
from tfprune.pipeline.steps.base import Context, Importance, LeftAlone, Result, Share, Step
from tfprune.pipeline.steps.training import TrainingStep, describe_training, fit
from tfprune.validation import read_share_or_size
from tfprune.vocabulary import (
    COUNTED_TARGETS,
    DEVICE_TARGETS,
    DEVICES,
    MEASURED_TARGETS,
    NEED_DATA,
    SCOPES,
    MeasuredFormat,
    Scope,
    explained,
)

if TYPE_CHECKING:
    import keras

    from tfprune.data import Examples
    from tfprune.devices import Device
    from tfprune.filters import FoldReport, RemovalPlan

# More images hardly change BatchNorm's statistics.
RECALIBRATION_IMAGES = 2048

# The targets that are numbers, in the order in which errors name them.
_COUNTED = tuple(name for name in COUNTED_TARGETS if name != "dead")
_MEASURED = (*MEASURED_TARGETS, *DEVICE_TARGETS)
# Those that a device's compiler estimates, and those that a training can approach.
_ON_DEVICE = tuple(name for name in _MEASURED if name != "bytes")
_LEARNT = (*_COUNTED, *_ON_DEVICE)
_COUNTED_ONLY, _MEASURED_ONLY = frozenset({"scope", "rounds"}), frozenset({"threads", "format"})


def _estimating() -> str:
    return ", ".join(name for name, sentence in DEVICES.items() if "estimated" in sentence)


ShareOrSize = Annotated[
    float, BeforeValidator(read_share_or_size, json_schema_input_type=float | str)
]


class DeviceStep(Step):
    """What the kinds of steps share whose target may be one of a device."""

    latency: Annotated[Share | None, Field(description=MEASURED_TARGETS["latency"])] = None
    milliseconds: Annotated[
        float | None, Field(gt=0, description=MEASURED_TARGETS["milliseconds"])
    ] = None
    cycles: Annotated[Share | None, Field(description=DEVICE_TARGETS["cycles"])] = None
    sram: Annotated[ShareOrSize | None, Field(description=DEVICE_TARGETS["sram"])] = None
    flash: Annotated[ShareOrSize | None, Field(description=DEVICE_TARGETS["flash"])] = None
    device: Annotated[
        str | None,
        Field(description=f"whose compiler estimates the target: {_estimating()}"),
    ] = None
    device_options: dict[str, bool | int | float | str] = Field(
        {}, description="options of the device"
    )

    def check_target(self, target: Any) -> None:
        """Checks that a target and the device go together.

        Raises:
            ValueError: they do not.
        """
        from tfprune.devices import check_target

        if self.device_options and self.device is None:
            raise ValueError("device_options are for a device: give one, or leave them out")
        try:
            check_target(target, self.find_device())
        except UsageError as error:
            raise ValueError(str(error)) from None

    def find_device(self) -> Device | None:
        """The device whose compiler estimates the target; None where none does."""
        from tfprune.devices import find_device

        return None if self.device is None else find_device(self.device, **self.device_options)

    def check_installed(self) -> None:
        """The device's compiler is there."""
        if (device := self.find_device()) is not None:
            device.check()


class LearnStep(DeviceStep, TrainingStep):
    """Trains until whole channels are zero: under group lasso, or up to a target, the share kept.

    With a target the strength is found, channel by channel; a strength beside it works on all
    channels until the target is met. The compiler of a `device` estimates `cycles`, `latency`,
    `milliseconds`, `sram` and `flash`.
    """

    revision = 1

    kind: Literal["learn"]
    strength: Annotated[
        float | None,
        Field(ge=0, description="of the group lasso, on all filters: beside a target, or alone"),
    ] = None
    groups: Annotated[
        Literal["filter", "depth"], Field(description="what becomes zero: filters, or branches")
    ] = "filter"
    filters: Annotated[Share | None, Field(description=COUNTED_TARGETS["filters"])] = None
    macs: Annotated[Share | None, Field(description=COUNTED_TARGETS["macs"])] = None
    params: Annotated[Share | None, Field(description=COUNTED_TARGETS["params"])] = None
    importance: Importance = "lasso"
    round_to: Annotated[int, Field(ge=1, description="multiples to shrink to")] = 1
    begin: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of the training at which channels begin to go",
        ),
    ] = 0.0
    end: Annotated[
        float, Field(ge=0, le=1, description="share of the training at which the target is met")
    ] = 0.5
    frequency: Annotated[int, Field(ge=1, description="steps between plans")] = 100

    @model_validator(mode="after")
    def _strength_or_target(self) -> LearnStep:
        given = [name for name in _LEARNT if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one target, not {' and '.join(given)}")
        if given and self.groups == "depth":
            raise ValueError('targets are for filters: give groups = "depth" a strength alone')
        if not given and self.strength is None:
            raise ValueError(
                f"give a strength, or one of {', '.join(_COUNTED)}; with a device also "
                f"{', '.join(_ON_DEVICE)}"
            )
        self._check_device(given[0] if given else None)
        if self.begin >= self.end:
            raise ValueError(f"begin={self.begin:g} does not come before end={self.end:g}")
        return self

    def _check_device(self, target: str | None) -> None:
        if target in _ON_DEVICE:
            if self.device is None:
                raise ValueError(
                    f"{target} is learnt for a device: give one, such as ethos-u55-128"
                )
            self.check_target(target)
        elif self.device is not None or self.device_options:
            name = "device" if self.device is not None else "device_options"
            raise ValueError(
                f"{name} has no meaning without one of {', '.join(_ON_DEVICE)}: leave it out"
            )

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Trains while channels shrink to zero."""
        from tfprune import LearnStructure
        from tfprune.model.group_lasso import GroupLasso

        learner = LearnStructure(
            GroupLasso(self.strength or 0.0, self.groups),
            **{name: getattr(self, name) for name in _LEARNT},
            device=self.find_device(),
            importance=self.importance,
            data=_ranked_on(self, context),
            round_to=self.round_to,
            begin=self.begin,
            end=self.end,
            frequency=self.frequency,
        )
        # Before weights of a training that was killed are restored.
        learner.prepare(model)
        model, record = fit(self, model, context, [learner])
        if learner.reached is not None:
            record["measured"] = asdict(learner.reached)
        return model, record

    def describe(self) -> str:
        """Tells the strength, the target, and the training."""
        over = " over residual branches" if self.groups == "depth" else ""
        parts = [f"group lasso of strength {self.strength:g}{over}"] if self.strength else []
        if (until := _budget(self)) is not None:
            parts.append(
                f"shrinks {until} to zero, the least important by {self.importance} first, from "
                f"{self.begin:.0%} to {self.end:.0%} of its training"
            )
        return f"{', and '.join(parts)}; {describe_training(self)}"


@dataclass(frozen=True)
class SlimPlan:
    """What a slim step found out before it removes anything.

    Attributes:
        model: the model that the plan is for; of a dead target, simplified.
        removal: which channels go.
        report: of a dead target, which constants were folded and which were not.
    """

    model: keras.Model
    removal: RemovalPlan
    report: FoldReport | None = None


class SlimStep(DeviceStep):
    """Removes channels and rebuilds the model; give exactly one target: a share kept, or dead.

    `latency` (a share), `milliseconds` and `bytes` are measured on exported TFLite files, on the
    machine that does the step; so another machine comes to another plan. With a `device`, its
    compiler estimates `cycles`, `latency`, `milliseconds`, `sram` and `flash`.
    """

    revision = 3
    reshapes = True

    kind: Literal["slim"]
    filters: Annotated[Share | None, Field(description=COUNTED_TARGETS["filters"])] = None
    macs: Annotated[Share | None, Field(description=COUNTED_TARGETS["macs"])] = None
    params: Annotated[Share | None, Field(description=COUNTED_TARGETS["params"])] = None
    dead: Annotated[bool, Field(description=COUNTED_TARGETS["dead"])] = False
    bytes: Annotated[int | None, Field(gt=0, description=MEASURED_TARGETS["bytes"])] = None
    threads: Annotated[int, Field(ge=1, le=256, description="of the interpreter that is timed")] = 1
    format: Annotated[MeasuredFormat, Field(description="of the file that is measured")] = "tflite"
    scope: Annotated[
        Scope, Field(description=f"of filters, what reaches the share: {explained(SCOPES)}")
    ] = "layer"
    importance: Importance = "l2"
    round_to: Annotated[int, Field(ge=1, description="multiples to shrink to")] = 1
    minimum: Annotated[int, Field(ge=1, description="channels that a layer keeps at least")] = 1
    exclude: LeftAlone = ()
    rounds: Annotated[
        int,
        Field(ge=1, le=1000, description="steps to the share, each ranked anew, without training"),
    ] = 1
    tolerance: Annotated[
        float,
        Field(ge=0, description="of dead: how far off borders may be where constants are folded"),
    ] = 0.0
    recalibrate: Annotated[
        int | None,
        Field(
            ge=0,
            description="training examples that set BatchNorm's statistics anew; 2048 if not "
            "given, and none for dead",
        ),
    ] = None
    augment: Annotated[
        tuple[Literal["crop", "flip"], ...],
        Field(description="random changes of these images, as in the training"),
    ] = ()

    @model_validator(mode="after")
    def _one_target(self) -> SlimStep:
        targets = _COUNTED + _MEASURED
        given = [name for name in targets if getattr(self, name) is not None]
        if len(given) + self.dead != 1:
            raise ValueError(f"give exactly one of {', '.join(targets)} and dead")
        measured = bool(given) and given[0] in _MEASURED
        foreign = _COUNTED_ONLY if measured else _MEASURED_ONLY | {"device", "device_options"}
        if self.device is not None and measured:
            foreign |= _MEASURED_ONLY
        # A step that was written out in full has its defaults, too.
        fields = type(self).model_fields
        unused = {name for name in foreign if getattr(self, name) != fields[name].default}
        if unused:
            target = given[0] if given else "dead"
            raise ValueError(f"{min(unused)} has no meaning for the target {target}: leave it out")
        if measured:
            self.check_target(given[0])
        if self.tolerance and not self.dead:
            raise ValueError("tolerance is for constants, which dead = true folds: leave it out")
        if self.dead and self.rounds > 1:
            raise ValueError("rounds has no meaning for the target dead: leave it out")
        return self

    @property
    def needs_images(self) -> str | None:
        """Some importances look at labelled examples."""
        return f"importance {self.importance}" if self.importance in NEED_DATA else None

    @property
    def macs_kept(self) -> float:
        """The share of the model's MACs that is left after it, about; for a forecast."""
        told = self.macs or self.params or self.latency or self.cycles or self.flash or self.sram
        # Bytes and milliseconds are no share.
        return min(told or (self.filters or 1.0) ** 2, 1.0)

    def plan(self, model: keras.Model, context: Context, *, simplify: bool = True) -> SlimPlan:
        """Decides which channels go; no weight of the model is changed.

        Where the importance looks at examples, the model is compiled for its task, unless that is
        plain classification: gradients are those of the task's losses.

        Args:
            model: what to slim.
            context: its examples rank filters, where the importance needs them.
            simplify: whether a dead target also removes dead branches and folds constants.
        """
        from tfprune import filters, slimming

        simpler, report = model, None
        if self.dead and simplify:
            simpler, report = filters.simplified(model, tolerance=self.tolerance)
        if self.importance in NEED_DATA and context.dataset is not None:
            task = context.task(simpler)
            if not all(head.is_plain_classification for head in task.heads):
                simpler.compile("sgd", **task.compile_arguments())
        options = self.model_dump(
            exclude={"kind", "recalibrate", "augment", "tolerance", "device", "device_options"},
            exclude_defaults=True,
        )
        removal = slimming.plan(
            simpler, **options, device=self.find_device(), data=_ranked_on(self, context)
        )
        return SlimPlan(simpler, removal, report)

    @property
    def recalibration_images(self) -> int:
        """How many training images set BatchNorm's statistics anew."""
        if self.recalibrate is None:
            # What is dead takes no part in any statistics.
            return 0 if self.dead else RECALIBRATION_IMAGES
        return self.recalibrate

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Plans, removes and recalibrates."""
        from tfprune import devices, filters

        plan = self.plan(model, context)
        removal = plan.removal
        bare = filters.rebuild(removal)
        slim = recalibrate_model(bare, context, self.recalibration_images, self.augment)
        folds = plan.report.folds if plan.report else ()
        measured = removal.measured if isinstance(removal, devices.MeasuredPlan) else None
        return slim, {
            "removed": {layer: len(indices) for layer, indices in removal.removed.items()},
            "folds": [asdict(fold) for fold in folds],
            "removed_layers": filters.removed_layers(model, slim),
            "dead_units": int(removal.groups.dead().sum()),
            "inexact": removal.inexact,
            "measured": None if measured is None else asdict(measured),
            **context.validated(before=model, removed=bare, recalibrated=slim),
        }

    def describe(self) -> str:
        """Tells the target and how channels are ranked."""
        rounding = f", in multiples of {self.round_to}" if self.round_to > 1 else ""
        return f"removes {_goal(self)}, the least important by {self.importance} first{rounding}"


def _ranked_on(step: LearnStep | SlimStep, context: Context) -> Examples | None:
    """The examples that the importance of a step looks at; reading others takes time."""
    return context.labelled if step.importance in NEED_DATA else None


def recalibrate_model(
    model: keras.Model, context: Context, count: int, augment: Sequence[str]
) -> keras.Model:
    """A model with BatchNorm's statistics of some training images, where there are any."""
    from tfprune import data, filters

    if context.dataset is None or not count:
        return model
    inputs = data.seen(context.dataset.train, count, seed=context.seed, augment=tuple(augment))
    return filters.recalibrate(model, inputs)


_SHARES = {
    "filters": "filters are",
    "macs": "MACs are",
    "params": "parameters are",
    "latency": "latency is",
    "cycles": "cycles are",
    "sram": "on-chip memory is",
    "flash": "storage is",
}


def _budget(step: DeviceStep) -> str | None:
    """The target of a step in words; None without one, and for `dead` and `bytes`."""
    there = "" if step.device is None else f", as estimated for {step.device},"
    for name, title in _SHARES.items():
        if (kept := getattr(step, name, None)) is not None:
            left = f"{100 * kept:.4g}% of the {title} left"
            if kept > 1:
                left = f"{kept:,.0f} bytes of {title.partition(' is')[0]} are needed"
            return f"channels until {left}{there}"
    if step.milliseconds is not None:
        return f"channels until one image takes {step.milliseconds:g} ms{there}"
    return None


def _goal(step: SlimStep) -> str:
    if step.dead:
        return "all channels that contribute nothing"
    budget = _budget(step) or f"channels until the file has {step.bytes:,} bytes"
    # A list of parts goes on behind it.
    return budget.removesuffix(",")
