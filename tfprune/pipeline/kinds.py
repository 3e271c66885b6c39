"""The steps that a pipeline file may name, one table a kind."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tfprune.training import Training
from tfprune.vocabulary import (
    FormatName,
    ImportanceName,
    MeasuredFormat,
    Quantization,
    Scope,
    Selection,
)

Share = Annotated[float, Field(gt=0, le=1)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]

_T = TypeVar("_T")

# Beyond a few hundred images the ranges of activations hardly change.
CALIBRATION_IMAGES = 500


class Table(BaseModel):
    """A table of a pipeline file: no unknown keys, nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    """Refuses a list that says something twice.

    Raises:
        ValueError: it does.
    """
    seen: set[_T] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value} comes twice")
        seen.add(value)
    return values


class Taught(Training):
    """What steps that train can have beside their training: a teacher (Hinton et al. 2015)."""

    teacher: Annotated[
        str | None, Field(description="an earlier step of the chain, whose model teaches")
    ] = None
    teacher_weight: Annotated[float, Field(ge=0, le=1, description="its part in the loss")] = 0.5
    temperature: Annotated[float, Field(gt=0, description="divides the logits of both")] = 4.0


class TrainStep(Taught):
    """Trains: from scratch as the first step of a chain, further as a later one."""

    kind: Literal["train"]
    keep: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(description="epochs whose weights are kept, for a later step to rewind to"),
    ] = ()

    @model_validator(mode="after")
    def _kept_are_trained(self) -> TrainStep:
        if any(epoch > self.epochs for epoch in self.keep):
            raise ValueError(f"keep={list(self.keep)} goes beyond the last epoch, {self.epochs}")
        return self


class PruneStep(Taught):
    """Weight pruning while training, after tfmot's `PolynomialDecay`."""

    kind: Literal["prune"]
    sparsity: Sparsity
    initial: Sparsity = 0.0
    begin: Annotated[float, Field(ge=0, le=1, description="share of the training")] = 0.0
    end: Annotated[float, Field(ge=0, le=1, description="share of the training")] = 0.5
    frequency: Annotated[
        int | None, Field(ge=1, description="steps between updates; of the ramp's length if unset")
    ] = None
    scope: Scope = "layer"

    @model_validator(mode="after")
    def _ordered(self) -> PruneStep:
        if self.begin > self.end:
            raise ValueError(f"begin={self.begin:g} comes after end={self.end:g}")
        return self


class PruneOnceStep(Table):
    """Weight pruning at once, without training: one round of a lottery ticket."""

    kind: Literal["prune-once"]
    share: Annotated[float, Field(gt=0, lt=1, description="of the weights that live, how many die")]
    scope: Scope = "layer"
    select: Selection = "magnitude"
    layers: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        {}, description="shares of their own for layers, by name or glob"
    )

    @model_validator(mode="after")
    def _layers_need_their_scope(self) -> PruneOnceStep:
        if self.layers and self.scope == "global":
            raise ValueError('layers have shares of their own only under scope = "layer"')
        return self


class RoundStep(Table):
    """Rounds the weights of each output channel to few values, so that files compress better."""

    kind: Literal["round"]
    bits: Annotated[int, Field(ge=2, le=8, description="of one weight")] = 5


class LearnStep(Taught):
    """Trains until whole channels are zero: under group lasso, or up to a target, the share kept.

    With a target the strength is found, channel by channel; a strength beside it works on all
    channels until the target is met.
    """

    kind: Literal["learn"]
    strength: Annotated[float, Field(ge=0)] | None = None
    groups: Annotated[
        Literal["filter", "depth"], Field(description="what becomes zero: filters, or branches")
    ] = "filter"
    filters: Share | None = None
    macs: Share | None = None
    params: Share | None = None
    importance: ImportanceName = "lasso"
    round_to: Annotated[int, Field(ge=1)] = 1
    begin: Annotated[float, Field(ge=0, le=1, description="share of the training")] = 0.0
    end: Annotated[float, Field(ge=0, le=1, description="share of the training")] = 0.5
    frequency: Annotated[int, Field(ge=1, description="steps between plans")] = 100

    @model_validator(mode="after")
    def _strength_or_target(self) -> LearnStep:
        given = [name for name in ("filters", "macs", "params") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one target, not {' and '.join(given)}")
        if given and self.groups == "depth":
            raise ValueError('targets are for filters: give groups = "depth" a strength alone')
        if not given and self.strength is None:
            raise ValueError("give a strength, or one of filters, macs and params")
        if self.begin >= self.end:
            raise ValueError(f"begin={self.begin:g} does not come before end={self.end:g}")
        return self


COUNTED = ("filters", "macs", "params")
MEASURED = ("latency", "milliseconds", "bytes")
_COUNTED_ONLY, _MEASURED_ONLY = frozenset({"scope", "rounds"}), frozenset({"threads", "format"})


def _default(table: type[BaseModel], name: str) -> object:
    return table.model_fields[name].default


class SlimStep(Table):
    """Removes channels and rebuilds the model; give exactly one target: a share kept, or dead.

    `latency` (a share), `milliseconds` and `bytes` are measured on exported TFLite files, on the
    machine that does the step; so another machine comes to another plan.
    """

    kind: Literal["slim"]
    filters: Share | None = None
    macs: Share | None = None
    params: Share | None = None
    dead: bool = False
    latency: Share | None = None
    milliseconds: Annotated[float, Field(gt=0)] | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None
    threads: Annotated[int, Field(ge=1, le=256, description="of the interpreter that is timed")] = 1
    format: Annotated[MeasuredFormat, Field(description="of the file that is measured")] = "tflite"
    scope: Annotated[
        Scope,
        Field(description="of filters: a share of each layer, or of all"),
    ] = "layer"
    importance: ImportanceName = "l2"
    round_to: Annotated[int, Field(ge=1)] = 1
    minimum: Annotated[int, Field(ge=1, description="channels that a layer keeps at least")] = 1
    exclude: Annotated[
        tuple[str, ...], Field(description="layers left alone, by name, path or glob")
    ] = ()
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
        Field(ge=0, description="training images for BatchNorm's statistics: 2048; 0 for dead"),
    ] = None
    augment: Annotated[
        tuple[Literal["crop", "flip"], ...],
        Field(description="of these images: as in [training], if not given"),
    ] = ()

    @model_validator(mode="after")
    def _one_target(self) -> SlimStep:
        given = [name for name in COUNTED + MEASURED if getattr(self, name) is not None]
        if len(given) + self.dead != 1:
            raise ValueError(f"give exactly one of {', '.join(COUNTED + MEASURED)} and dead")
        foreign = _COUNTED_ONLY if given and given[0] in MEASURED else _MEASURED_ONLY
        # A step that was written out in full says its defaults, too.
        unused = {name for name in foreign if getattr(self, name) != _default(type(self), name)}
        if unused:
            target = given[0] if given else "dead"
            raise ValueError(f"{min(unused)} has no meaning for the target {target}: leave it out")
        if self.tolerance and not self.dead:
            raise ValueError("tolerance is for constants, which dead = true folds: leave it out")
        if self.dead and self.rounds > 1:
            raise ValueError("rounds lead to a share, and dead has none: leave rounds out")
        return self


class RetrainStep(Taught):
    """Trains a pruned model on, its zeros held, in one of the ways of Renda et al. 2020.

    `finetune` trains on from the weights as they are. `lr` also keeps the weights, and replays the
    schedule of the learning rate from `epoch` on. `weights` puts the living weights back to what
    they were after `epoch` of the chain's first training (0: at initialisation), and replays from
    there. `reinit` draws them anew under the same masks: the control of Frankle & Carbin 2019.
    `random` draws the masks as well, as many living weights in each tensor.
    """

    kind: Literal["retrain"]
    rewind: Literal["finetune", "lr", "weights", "reinit", "random"] = "finetune"
    epoch: Annotated[int, Field(ge=0, description="to rewind to")] = 0

    @model_validator(mode="after")
    def _epoch_is_used(self) -> RetrainStep:
        if self.epoch and self.rewind not in ("lr", "weights"):
            raise ValueError(f'epoch={self.epoch} has no meaning with rewind = "{self.rewind}"')
        if self.epoch >= self.epochs:
            raise ValueError(f"epoch={self.epoch} leaves nothing of {self.epochs} epochs to train")
        return self


class QuantizeStep(Table):
    """Ends a chain: the variant is delivered quantized, as TFLite."""

    kind: Literal["quantize"]
    to: Quantization = "int8"
    images: Annotated[
        int, Field(ge=1, description="training images that set the ranges of activations")
    ] = CALIBRATION_IMAGES


class ExportStep(Table):
    """Ends a chain: the variant is delivered in formats of its own."""

    kind: Literal["export"]
    formats: Annotated[tuple[FormatName, ...], Field(min_length=1), AfterValidator(distinct)]
    images: Annotated[
        int, Field(ge=1, description="training images that set the ranges of activations")
    ] = CALIBRATION_IMAGES


Step = Annotated[
    TrainStep
    | PruneStep
    | PruneOnceStep
    | RoundStep
    | LearnStep
    | SlimStep
    | RetrainStep
    | QuantizeStep
    | ExportStep,
    Field(discriminator="kind"),
]

KINDS: dict[str, type[BaseModel]] = {
    "train": TrainStep,
    "prune": PruneStep,
    "prune-once": PruneOnceStep,
    "round": RoundStep,
    "learn": LearnStep,
    "slim": SlimStep,
    "retrain": RetrainStep,
    "quantize": QuantizeStep,
    "export": ExportStep,
}
"""The tables by their `kind`."""

TRAINING = tuple(kind for kind, table in KINDS.items() if issubclass(table, Training))
"""The kinds that train, and so inherit what `[training]` says."""
