"""Steps that change single weights: `prune`, `prune-once`, `quantize-weights` and `cluster`.

Beside them `rewrite`, which gives a model the form in which zeros among its weights pay.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tfprune.pipeline.steps.base import Context, LeftAlone, Result, Step, Table
from tfprune.pipeline.steps.training import TrainingStep, describe_training, fit
from tfprune.vocabulary import (
    CLUSTER_SCOPES,
    CLUSTER_STARTS,
    PATTERNS,
    POLICIES,
    SELECTIONS,
    WEIGHT_SCOPES,
    ClusterScope,
    ClusterStart,
    Policy,
    Selection,
    WeightScope,
    explained,
    read_pattern,
)

if TYPE_CHECKING:
    import keras

Sparsity = Annotated[float, Field(ge=0, lt=1)]
Included = Annotated[tuple[str, ...], Field(description="only these layers, by name, path or glob")]


def _is_pattern(text: str) -> str:
    read_pattern(text)
    return text


class WhichWeights(Table):
    """Which weights become zero; see `tfprune.PruneWeights`."""

    scope: Annotated[
        WeightScope, Field(description=f"what reaches the share: {explained(WEIGHT_SCOPES)}")
    ] = "layer"
    select: Annotated[Selection, Field(description=f"which go: {explained(SELECTIONS)}")] = (
        "magnitude"
    )
    pattern: Annotated[
        Annotated[str, AfterValidator(_is_pattern)] | None,
        Field(description=f"what hardware can use: {explained(PATTERNS)}"),
    ] = None
    layers: dict[str, Sparsity] = Field(
        {}, description="shares of their own for layers, by name or glob"
    )
    include: Included = ()
    exclude: LeftAlone = ()
    policy: Annotated[
        Policy | None, Field(description=f"only what profits: {explained(POLICIES)}")
    ] = None
    min_kept: Annotated[int, Field(ge=1, description="weights that each tensor keeps at least")] = 1

    @model_validator(mode="after")
    def _layers_need_their_scope(self) -> WhichWeights:
        if self.layers and self.scope != "layer":
            raise ValueError('layers have shares of their own only under scope = "layer"')
        return self


def _options(step: WhichWeights, seed: int) -> dict[str, Any]:
    """The arguments that `PruneWeights` and `prune_once` have in common."""
    return {
        "scope": step.scope,
        "select": step.select,
        "pattern": None if step.pattern is None else read_pattern(step.pattern),
        "layers": step.layers,
        "include": step.include or None,
        "exclude": step.exclude or None,
        "policy": step.policy,
        "seed": seed,
        "min_kept": step.min_kept,
    }


class PruneStep(TrainingStep, WhichWeights):
    """Weight pruning while training, after tfmot's `PolynomialDecay`."""

    revision = 1

    kind: Literal["prune"]
    sparsity: Annotated[Sparsity, Field(description="share of the weights that end at zero")]
    initial: Annotated[Sparsity, Field(description="sparsity at which the ramp begins")] = 0.0
    begin: Annotated[
        float,
        Field(ge=0, le=1, description="share of the training at which the ramp begins"),
    ] = 0.0
    end: Annotated[
        float,
        Field(ge=0, le=1, description="share of the training at which the ramp ends"),
    ] = 0.5
    frequency: Annotated[
        int | None,
        Field(
            ge=1,
            description="steps between two cuts; 100, or a twentieth of the ramp where that is "
            "less, if not given",
        ),
    ] = None

    @model_validator(mode="after")
    def _ordered(self) -> PruneStep:
        if self.begin > self.end:
            raise ValueError(f"begin={self.begin:g} comes after end={self.end:g}")
        if self.layers and not self.sparsity:
            raise ValueError("layers have shares of their own only beside a sparsity above 0")
        return self

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Trains while a schedule sets more and more weights to zero."""
        from tfprune import weights
        from tfprune.training.schedule import polynomial_decay

        total = self.epochs * math.ceil(len(context.images.train) / self.batch_size)
        schedule = polynomial_decay(
            self.initial,
            self.sparsity,
            begin=round(self.begin * total),
            end=round(self.end * total),
            frequency=self.frequency,
        )
        pruner = weights.PruneWeights(schedule, **_options(self, context.seed))
        return fit(self, model, context, [pruner])

    def describe(self) -> str:
        """Tells the sparsity, when it is reached, and the training."""
        which = ", drawn by chance," if self.select == "random" else ""
        return (
            f"sets {100 * self.sparsity:.4g}% of the weights of {_where(self)} to zero{which}, "
            f"from {self.begin:.0%} to {self.end:.0%} of its training; {describe_training(self)}"
        )


class PruneOnceStep(WhichWeights, Step):
    """Weight pruning at once, without training: one round of a lottery ticket."""

    revision = 1

    kind: Literal["prune-once"]
    share: Annotated[float, Field(gt=0, lt=1, description="of the weights that live, how many die")]

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Sets a share of the living weights to zero."""
        from tfprune import weights

        pruned = weights.prune_once(model, self.share, **_options(self, context.seed))
        return pruned, context.validated(before=model, pruned=pruned)

    def describe(self) -> str:
        """Tells the share and which weights go."""
        which = "drawn by chance" if self.select == "random" else "the smallest"
        sentence = (
            f"sets {100 * self.share:.4g}% of the living weights of {_where(self)} to zero, {which}"
        )
        own = ", ".join(f"{100 * share:.4g}% in {layer}" for layer, share in self.layers.items())
        return f"{sentence}; {own}" if own else sentence


class QuantizeWeightsStep(Step):
    """Rounds the weights of each output channel to few values, so that files compress better."""

    former_names = ("round",)
    shares_values = True

    kind: Literal["quantize-weights"]
    bits: Annotated[int, Field(ge=2, le=8, description="of one weight")] = 5

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Rounds the weights."""
        from tfprune import weights

        rounded = weights.round_weights(model, self.bits)
        return rounded, context.validated(before=model, rounded=rounded)

    def describe(self) -> str:
        """Tells how many values are left."""
        return f"rounds the weights of each output channel to {2**self.bits - 1} values"


class ClusterStep(TrainingStep):
    """Gives the weights few values by k-means, and trains these values."""

    trains_new = False
    shares_values = True
    holds_values = True

    kind: Literal["cluster"]
    values: Annotated[
        int, Field(ge=2, le=256, description="of a layer or channel, zero included")
    ] = 16
    scope: Annotated[
        ClusterScope, Field(description=f"what shares its values: {explained(CLUSTER_SCOPES)}")
    ] = "layer"
    start: Annotated[
        ClusterStart, Field(description=f"where k-means begins: {explained(CLUSTER_STARTS)}")
    ] = "linear"
    include: Included = ()
    exclude: LeftAlone = ()

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Clusters the weights, and trains them so."""
        from tfprune import quantize

        picks = {"include": self.include or None, "exclude": self.exclude or None}
        clustered = quantize.cluster(
            model, self.values, scope=self.scope, start=self.start, seed=context.seed, **picks
        )
        before = context.validated(before=model, clustered=clustered)
        trained, record = fit(self, clustered, context, [quantize.KeepClusters(**picks)])
        return trained, {**before, **record}

    def describe(self) -> str:
        """Tells how many values are left, and the training."""
        return (
            f"gives the weights of each {self.scope} {self.values} values; "
            f"{describe_training(self)}"
        )


class RewriteStep(Step):
    """Rewrites what keeps XNNPACK's sparse kernels from running a model; outputs stay the same."""

    reshapes = True

    kind: Literal["rewrite"]

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Rewrites the model."""
        from tfprune import weights

        rewritten = weights.rewrite_for_xnnpack(model)
        return rewritten, context.validated(before=model, rewritten=rewritten)

    def describe(self) -> str:
        """Tells what for."""
        return "rewrites exactly what keeps XNNPACK's sparse kernels from running it"


def _where(step: WhichWeights) -> str:
    return {
        "layer": "every layer",
        "global": "all layers together",
        "erk": "all layers, each at a rate of its own (Erdős-Rényi-Kernel),",
    }[step.scope]
