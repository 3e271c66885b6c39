"""What a pipeline file may say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfprune.errors import TfpruneError, UsageError, did_you_mean
from tfprune.training import Training

Share = Annotated[float, Field(gt=0, le=1)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Table):
    """Which images: a tensorflow-datasets name, or `digits`, which is embedded."""

    name: str
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    image_size: tuple[int, int] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None


class ModelSpec(_Table):
    """Which net of the zoo, and its options."""

    name: str
    options: dict[str, Any] = {}


class TrainStep(Training):
    """Trains: from scratch as the first step of a chain, further as a later one."""

    kind: Literal["train"]


class PruneStep(Training):
    """Weight pruning while training, after tfmot's `PolynomialDecay`."""

    kind: Literal["prune"]
    sparsity: Sparsity
    initial: Sparsity = 0.0
    begin: Annotated[float, Field(ge=0, le=1, description="share of the training")] = 0.0
    end: Annotated[float, Field(ge=0, le=1, description="share of the training")] = 0.5
    frequency: Annotated[int, Field(ge=1, description="steps between updates")] = 100
    scope: Literal["layer", "global"] = "layer"

    @model_validator(mode="after")
    def _ordered(self) -> PruneStep:
        if self.begin > self.end:
            raise ValueError(f"begin={self.begin:g} comes after end={self.end:g}")
        return self


class LearnStep(Training):
    """Trains under group lasso, so that whole channels become zero."""

    kind: Literal["learn"]
    strength: Annotated[float, Field(ge=0)]


class SlimStep(_Table):
    """Removes channels and rebuilds the model; give exactly one target, the share kept."""

    kind: Literal["slim"]
    filters: Share | None = None
    macs: Share | None = None
    params: Share | None = None
    dead: bool = False
    importance: str = "l2"
    round_to: Annotated[int, Field(ge=1)] = 1
    recalibrate: Annotated[
        int, Field(ge=0, description="training images for BatchNorm's statistics")
    ] = 2048

    @model_validator(mode="after")
    def _one_target(self) -> SlimStep:
        given = sum(each is not None for each in (self.filters, self.macs, self.params))
        if given + self.dead != 1:
            raise ValueError("give exactly one of filters, macs, params and dead")
        return self


Step = Annotated[TrainStep | PruneStep | LearnStep | SlimStep, Field(discriminator="kind")]


class Pipeline(_Table):
    """One experiment: a data set, a model, and variants of it.

    `training` holds what steps that train have in common; `steps` are named once and `variants`
    are chains of their names, so what variants share is done once.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataSpec
    model: ModelSpec
    training: dict[str, Any] = {}
    steps: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Step]
    variants: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], list[str]],
        Field(min_length=1),
    ]
    formats: tuple[str, ...] = ("keras", "savedmodel", "tflite", "tflite-int8")
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)

    @model_validator(mode="before")
    @classmethod
    def _share_training(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("training", {}), dict):
            return raw
        common = raw.get("training", {})
        for key in common:
            if key not in Training.model_fields:
                raise ValueError(f"training.{key} is unknown: {_keys(key, Training)}")
        steps = raw.get("steps")
        if isinstance(steps, dict):
            steps = {
                name: {**common, **step}
                if isinstance(step, dict) and step.get("kind") in ("train", "prune", "learn")
                else step
                for name, step in steps.items()
            }
        return {**raw, "steps": steps}

    @model_validator(mode="after")
    def _chains(self) -> Pipeline:
        for variant, chain in self.variants.items():
            for step in chain:
                if step not in self.steps:
                    raise ValueError(
                        f"variants.{variant} names the step {step!r}, which [steps] does not have: "
                        f"{did_you_mean(step, self.steps)}"
                    )
            if not chain or self.steps[chain[0]].kind == "slim":
                raise ValueError(
                    f"variants.{variant} must begin with a step that trains: "
                    "a new model has nothing to remove"
                )
        return self


def load_pipeline(path: str | Path) -> Pipeline:
    """Reads and checks a pipeline file.

    Args:
        path: a TOML file.

    Raises:
        TfpruneError: the file cannot be read.
        UsageError: it is no TOML, or says something a pipeline cannot; the message names the file,
            the key and what is allowed.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TfpruneError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML ({error}): correct it there") from error
    try:
        return Pipeline.model_validate(raw)
    except ValidationError as error:
        raise UsageError(f"{path}: {_one_line(error)}") from error


_KINDS: dict[str, type[BaseModel]] = {
    "train": TrainStep,
    "prune": PruneStep,
    "learn": LearnStep,
    "slim": SlimStep,
}


def _keys(key: str, table: type[BaseModel]) -> str:
    return did_you_mean(key, table.model_fields)


def _table_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    """The table that holds the key at a location of pydantic's."""
    if location and location[0] == "steps" and len(location) > 3:
        return _KINDS[str(location[2])]
    tables: dict[str, type[BaseModel]] = {"data": DataSpec, "model": ModelSpec}
    return tables.get(str(location[0]), Pipeline) if len(location) > 1 else Pipeline


def _one_line(error: ValidationError) -> str:
    # A misspelt key is also a missing one; the misspelling is what to mend.
    first, *others = sorted(
        error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"
    )
    location = tuple(first["loc"])
    # Between a step's name and its key pydantic puts the kind that it chose.
    named = [
        str(part)
        for place, part in enumerate(location)
        if not (location[0] == "steps" and place == 2 and part in _KINDS) and part != "[key]"
    ]
    where = ".".join(named)
    kind = first["type"]
    message = first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        said = f"{where} is unknown: {_keys(str(location[-1]), _table_at(location))}"
    elif kind == "missing":
        said = f"{where} is missing: add it"
    elif kind == "union_tag_not_found":
        said = f"{where}.kind is missing: choose one of {', '.join(_KINDS)}"
    elif kind == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])
        said = f"{where}.kind = {tag!r} is unknown: {did_you_mean(tag, _KINDS)}"
    elif kind == "value_error":
        # Our own validators say which keys they mean.
        said = f"{where}: {message}" if where else message
    else:
        said = f"{where} = {first['input']!r}: {message}"
    more = f" (and {len(others)} more)" if others else ""
    return said + more
