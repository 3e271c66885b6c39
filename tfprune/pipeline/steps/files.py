"""Steps that end a chain with files of their own: `quantize` and `export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from tfprune.pipeline.steps.base import CALIBRATION_IMAGES, Context, Result, Step, distinct
from tfprune.vocabulary import QUANTIZATIONS, FormatName, Quantization

if TYPE_CHECKING:
    import keras


class DeliveryStep(Step):
    """Ends a chain: it changes no model, and says how the variant is delivered."""

    images: Annotated[
        int, Field(ge=1, description="training images that set the ranges of activations")
    ] = CALIBRATION_IMAGES

    @property
    def calibration_images(self) -> int:
        """How many training images calibrate the formats."""
        return self.images

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Leaves the model as it is: the run exports each variant."""
        return model, {}


class QuantizeStep(DeliveryStep):
    """Ends a chain: the variant is delivered quantized, as TFLite."""

    kind: Literal["quantize"]
    to: Quantization = "int8"

    @property
    def delivered_formats(self) -> tuple[str, ...]:
        """The one format of the quantization."""
        return (QUANTIZATIONS[self.to],)

    def describe(self) -> str:
        """Tells the quantization."""
        return f"quantizes to {self.to}"


class ExportStep(DeliveryStep):
    """Ends a chain: the variant is delivered in formats of its own."""

    kind: Literal["export"]
    formats: Annotated[tuple[FormatName, ...], Field(min_length=1), AfterValidator(distinct)]

    @property
    def delivered_formats(self) -> tuple[str, ...]:
        """The formats that it lists."""
        return self.formats

    def describe(self) -> str:
        """Tells the formats."""
        return f"exports {' and '.join(self.formats)}"
