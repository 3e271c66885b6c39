"""Steps for integer files: `quantize-aware`; without training `equalize` and `correct-biases`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from tfprune.errors import check_package
from tfprune.pipeline.steps.base import Context, Result, Step
from tfprune.pipeline.steps.training import TrainingStep, describe_training, fit
from tfprune.vocabulary import (
    ACTIVATION_TYPES,
    INTEGER_WEIGHTS,
    QUANTIZER,
    RANGES,
    RECIPE,
    WEIGHT_TYPES,
    ActivationTypeName,
    RangeName,
    WeightTypeName,
    explained,
)

if TYPE_CHECKING:
    import keras

# See `tfprune.quantize_aware`.
_EXAMPLES = 512
# See `tfprune.correct_biases`.
_CORRECTING_EXAMPLES = 256


class QuantizeAwareStep(TrainingStep):
    """Trains on with the rounded numbers that the integer file will have."""

    kind: Literal["quantize-aware"]
    weights: Annotated[
        WeightTypeName, Field(description=f"how kernels are rounded: {explained(WEIGHT_TYPES)}")
    ] = "int8"
    activations: Annotated[
        ActivationTypeName,
        Field(description=f"how activations are rounded: {explained(ACTIVATION_TYPES)}"),
    ] = "int8"
    ranges: Annotated[
        RangeName, Field(description=f"where ranges come from: {explained(RANGES)}")
    ] = "moving"
    range_momentum: Annotated[
        float, Field(ge=0, lt=1, description="of the moving averages of the ranges")
    ] = 0.99
    exclude: Annotated[
        tuple[str, ...], Field(description="layers that stay in float, by name or glob")
    ] = ()

    trains_new = False
    holds_values = True

    @model_validator(mode="after")
    def _momentum_is_used(self) -> QuantizeAwareStep:
        if "range_momentum" in self.model_fields_set and self.ranges != "moving":
            raise ValueError('range_momentum has a meaning with ranges = "moving" only')
        return self

    def check_installed(self) -> None:
        """What writes files with int16 activations is there."""
        if self.activations == "int16":
            check_package("activations = 'int16'", QUANTIZER, "quantizer")

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """A chain has one of these steps."""
        for earlier, step in before:
            if isinstance(step, QuantizeAwareStep):
                return (
                    f"is quantization-aware since its step {earlier!r}: train further with "
                    'kind = "retrain"'
                )
        return super().mistake(name, before, from_file)

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Makes the model quantization-aware, and trains it with zeros and shared values held."""
        from tfprune.quantize import KeepClusters, quantize_aware

        aware = quantize_aware(
            model,
            context.images.train.sample(_EXAMPLES).inputs,
            weights=self.weights,
            activations=self.activations,
            ranges=self.ranges,
            momentum=self.range_momentum,
            exclude=self.exclude,
        )
        return fit(self, aware, context, [KeepClusters()])

    def describe(self) -> str:
        """Tells the type of the weights, the ranges, and the training."""
        which = "moving" if self.ranges == "moving" else "learnt"
        return (
            f"computes with {self.weights} weights and {self.activations} activations of {which} "
            f"ranges, its zeros and shared values held; {describe_training(self)}"
        )


class _PostTrainingStep(Step):
    """What makes integer files of a trained model better, without training."""

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """Float weights that are free are what it changes."""
        for earlier, step in before:
            if isinstance(step, QuantizeAwareStep):
                return f"is quantization-aware since its step {earlier!r}: put {name!r} before it"
        return None


class EqualizeStep(_PostTrainingStep):
    """Scales channels so that the weights before and after them have ranges alike."""

    kind: Literal["equalize"]

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """Scaled channels would no longer share their values."""
        for earlier, step in before:
            if step.shares_values:
                return (
                    f"scales channels in {name!r} after {earlier!r}, so weights would no longer "
                    f"share their values: put {name!r} before it"
                )
        return super().mistake(name, before, from_file)

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Scales them."""
        from tfprune.quantize.post_training import equalize

        scaled = equalize(model)
        return scaled, context.validated(before=model, equalized=scaled)

    def describe(self) -> str:
        """Tells what for."""
        return (
            "scales channels so that the weights before and after them have ranges alike, which "
            "changes nothing in float"
        )


class CorrectBiasesStep(_PostTrainingStep):
    """Moves biases so that rounded weights give the means of the weights as they are."""

    is_for_files = True

    kind: Literal["correct-biases"]
    bits: Annotated[int, Field(ge=2, le=8, description="of one weight in the file")] = 8

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """Weights that are rounded already have no shift to correct."""
        for earlier, step in before:
            if getattr(step, "shares_values", False) and getattr(step, "bits", 9) <= self.bits:
                return (
                    f"corrects nothing in {name!r} after {earlier!r}, which rounds weights to as "
                    f"few bits: leave {name!r} out"
                )
        return super().mistake(name, before, from_file)

    def misfit(self, formats: Sequence[str]) -> str | None:
        """A file has to round weights to as many bits."""
        fitting = {RECIPE} if self.bits < 8 else INTEGER_WEIGHTS
        if fitting & set(formats):
            return None
        return (
            f"corrects biases for weights of {self.bits} bits, and no format of the variant has "
            f"such: add {' or '.join(sorted(fitting))}, or leave it out"
        )

    @property
    def needs_images(self) -> str | None:
        """The means are those of training images."""
        return "correcting biases"

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Measures the means on training images."""
        from tfprune.quantize.post_training import correct_biases

        some = context.images.train.sample(_CORRECTING_EXAMPLES).inputs
        corrected = correct_biases(model, some, bits=self.bits)
        return corrected, context.validated(before=model, corrected=corrected)

    def describe(self) -> str:
        """Tells for which files."""
        return (
            f"moves biases so that weights of {self.bits} bits give the means of the weights as "
            "they are; only files with such weights are better"
        )
