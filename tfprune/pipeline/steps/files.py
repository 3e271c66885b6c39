"""Steps that end a chain with files of their own: `quantize` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tfprune.errors import check_package
from tfprune.files import existing
from tfprune.pipeline.steps.base import CALIBRATION_IMAGES, Context, Result, Step, distinct
from tfprune.vocabulary import (
    KEEPING,
    PRECISIONS,
    QUANTIZATIONS,
    QUANTIZER,
    RECIPE,
    RECIPES,
    FormatName,
    Precision,
    Quantization,
    explained,
)

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
    keep: dict[str, Precision] = Field(
        {},
        description="layers that int8 files keep in another precision, by name or glob: "
        + explained(PRECISIONS),
    )
    recipe: Annotated[
        str | None,
        Field(
            description=f"what {RECIPE} is quantized by: a JSON file of ai-edge-quantizer, or "
            + explained(RECIPES)
        ),
    ] = None

    @model_validator(mode="after")
    def _options_have_formats(self) -> ExportStep:
        if self.keep and not set(self.formats) & set(KEEPING):
            raise ValueError(f"keep is for {' and '.join(KEEPING)}: add one, or leave it out")
        if (self.recipe is None) == (RECIPE in self.formats):
            raise ValueError(f"recipe and the format {RECIPE} go together: give both, or neither")
        return self

    def check_installed(self) -> None:
        """What writes layers of their own precision is there, and so is the recipe."""
        if self.keep:
            check_package("keep", QUANTIZER, "quantizer")
        if self.recipe is not None and self.recipe not in RECIPES:
            existing(Path(self.recipe))

    @property
    def delivery_options(self) -> dict[str, Any]:
        """The precision of layers, and the recipe."""
        options = {"keep": self.keep, "recipe": self.recipe}
        return {name: value for name, value in options.items() if value}

    @property
    def delivered_formats(self) -> tuple[str, ...]:
        """The formats that it lists."""
        return self.formats

    def describe(self) -> str:
        """Tells the formats."""
        said = f"exports {' and '.join(self.formats)}"
        if self.keep:
            kept = ", ".join(f"{layer} in {precision}" for layer, precision in self.keep.items())
            said += f", {kept}"
        return said if self.recipe is None else f"{said} by {self.recipe}"
