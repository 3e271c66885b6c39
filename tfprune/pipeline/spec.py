"""What a pipeline file may say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from tfprune import zoo
from tfprune.data.sources.base import CACHE_MIB, Cache, Unreadable
from tfprune.devices import Device, find_device
from tfprune.errors import UsageError, did_you_mean
from tfprune.figures import Figure
from tfprune.formats.registry import has_batch
from tfprune.model.reference import ModelReference, find_model
from tfprune.pipeline.expansion import (
    MOST_ROUNDS,
    Chain,
    override,
    with_rounds,
    with_sweep,
    with_training,
)
from tfprune.pipeline.steps import (
    CALIBRATION_IMAGES,
    FORMER_NAMES,
    Step,
    Table,
    any_step,
    distinct,
)
from tfprune.report.budgets import Budget, mistakes
from tfprune.tasks import TaskSpec
from tfprune.training import Training
from tfprune.validation import describe_error, read_toml
from tfprune.vocabulary import (
    BATCHES,
    DEFAULT_BATCH,
    DEVICES,
    FORMATS,
    LARGEST_BATCH,
    RECIPE,
    AnyBatch,
    FormatName,
    explained,
)

if TYPE_CHECKING:
    AnyStep = Step
else:
    # The kinds that are known by now; no other can be added.
    AnyStep = any_step()

# A file system takes names of 255 bytes, and hashes and suffixes come on top of these.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
# What stands beside the variants in a run's folder.
_TAKEN = {"steps", "latency", "devices", "trials"}
_TAKEN_SUFFIXES = {".json", ".csv", ".md", ".html", ".svg"}
# Random generators take seeds of 32 bits.
_LARGEST_SEED = 2**32 - 1
# Variants times seeds: what a run of weeks comes to, and what its plan takes in memory.
_MOST_DELIVERIES = 100_000
_LARGEST = 10**9
_LARGEST_OF_BUDGET = 10**18
_DEEPEST = 32
_LONGEST = 4096
_SHOWN = 60
ALL_FORMATS: tuple[FormatName, ...] = ("keras", "savedmodel", "tflite", "tflite-int8")


_Batch = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]
_Size = Annotated[int, Field(ge=1, le=_LARGEST)]


class DataSpec(Table):
    """Which data: a name, a folder, a file, or a function of your own; see `data.load`."""

    name: str
    validation: Annotated[
        float, Field(gt=0, lt=1, description="share held out of the train split")
    ] = 0.1
    image_size: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2048)], Annotated[int, Field(ge=1, le=2048)]] | None,
        Field(description="height and width to resize to"),
    ] = None
    limit: Annotated[int | None, Field(ge=1, description="at most so many examples a split")] = None
    options: dict[str, Any] = Field({}, description="arguments of the source, such as a function's")
    cache: Annotated[
        Cache | None, Field(description="where decoded files are kept for the next epoch")
    ] = None
    cache_mib: Annotated[
        float, Field(gt=0, description="the largest size of what is kept in memory or cached, MiB")
    ] = CACHE_MIB
    unreadable: Annotated[
        Unreadable, Field(description="what happens with files that cannot be read")
    ] = "fail"


class ModelSpec(Table):
    """Which model: a net of the zoo or of `keras.applications`, a file, or FILE.py:FUNCTION."""

    name: Annotated[
        str, Field(description="such as vgg, mobilenetv2, models/net.keras or my_model.py:build")
    ]
    options: dict[str, Any] = Field({}, description="of the net, such as width, or the function")
    input_shape: Annotated[
        tuple[_Size, ...] | dict[str, tuple[_Size, ...]] | None,
        Field(description="of one example, where the model leaves sizes open"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _in_its_case(cls, raw: Any) -> Any:
        name = raw.get("name") if isinstance(raw, dict) else None
        if isinstance(name, str) and (known := zoo.canonical(name)) is not None:
            return {**raw, "name": known}
        return raw

    @model_validator(mode="after")
    def _known(self) -> ModelSpec:
        try:
            find_model(self.name, self.options)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def reference(self) -> ModelReference:
        """What the name means."""
        return find_model(self.name, self.options)

    def identity(self) -> dict[str, Any]:
        """What the model depends on, for the hash of a result; see `ModelReference.identity`."""
        shape = self.model_dump(mode="json", include={"input_shape"}, exclude_none=True)
        return {**self.reference.identity(), **shape}


class DeviceSpec(Table):
    """A device that artifacts are measured on; its other keys are options of the device."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(description=explained(DEVICES))]
    label: Annotated[
        Name | None, Field(description="what tables call it; the name if not given")
    ] = None
    optional: Annotated[
        bool,
        Field(description="whether a run goes on where something that it needs is not installed"),
    ] = False

    @model_validator(mode="after")
    def _known(self) -> DeviceSpec:
        try:
            self.find()
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def find(self) -> Device:
        """The device."""
        return find_device(self.name, **(self.model_extra or {}))

    def missing(self) -> str:
        """What it still needs here, in one line, if it is optional; empty where that is nothing.

        Raises:
            UsageError: it is not optional, and needs something.
        """
        try:
            self.find().check()
        except UsageError as error:
            if not self.optional:
                raise
            return str(error)
        return ""

    @property
    def title(self) -> str:
        """What tables, folders and budgets call it."""
        return self.label or self.name


def none_delivered(runs: Sequence[str]) -> str:
    """Why a device measures nothing of a run, and what to do.

    Args:
        runs: the formats that it runs.
    """
    return f"runs {', '.join(runs)}, and no variant is delivered so: add {runs[0]!r} to formats"


class RoundsSpec(Table):
    """Variants NAME-1 to NAME-times: the k-th does `start`, k times `repeat`, then `end`."""

    start: tuple[str, ...] = ()
    repeat: Annotated[tuple[str, ...], Field(min_length=1)]
    end: tuple[str, ...] = ()
    times: Annotated[int, Field(ge=1, le=MOST_ROUNDS)]


def _optional(field: FieldInfo) -> Any:
    """The type of a field, or nothing."""
    optional: Any = field.annotation | None  # type: ignore[operator]
    return Annotated[optional, *field.metadata] if field.metadata else optional


# What all steps that train have in common: any part of a training.
SharedTraining = create_model(
    "SharedTraining",
    __base__=Table,
    __doc__="What steps that train have in common; a step's own keys win.",
    **cast(
        "Any",
        {name: (_optional(field), None) for name, field in Training.model_fields.items()},
    ),
)


class Pipeline(Table):
    """One experiment: a data set, a model, and variants of it.

    `training` holds what steps that train have in common; `steps` are named once and `variants`
    are chains of their names, so what variants share is done once. `rounds` and `sweep` are short
    for more variants; once a pipeline is read they are expanded and empty.
    """

    name: Annotated[Name, Field(description="of the run and its folder")]
    data: DataSpec
    model: ModelSpec
    task: Annotated[
        TaskSpec | None,
        Field(description="what the model is trained for; a classification if not given"),
    ] = None
    training: SharedTraining = SharedTraining()
    steps: dict[Name, AnyStep] = Field({})
    variants: Annotated[
        dict[Name, Chain], Field(min_length=1, description="chains of steps, the dense first")
    ]
    rounds: dict[Name, RoundsSpec] = Field({}, description="variants that repeat some steps")
    sweep: dict[str, dict[str, list[Any]]] = Field(
        {}, description="lists of values by step and parameter, each a variant"
    )
    formats: Annotated[tuple[FormatName, ...], Field(min_length=1), AfterValidator(distinct)] = (
        ALL_FORMATS
    )
    batch: Annotated[
        _Batch | AnyBatch,
        Field(
            description=f"examples a TFLite file takes at once: a number, or {explained(BATCHES)}"
        ),
    ] = DEFAULT_BATCH
    devices: Annotated[
        tuple[DeviceSpec, ...],
        Field(description="where every artifact that runs there is measured too"),
    ] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, le=_LARGEST_SEED)], ...],
        Field(min_length=1),
        AfterValidator(distinct),
    ] = (0,)
    budget: Annotated[
        Budget | None, Field(description="what `tfprune check` judges the run by")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        _require_bounds(raw)
        steps, sweep = raw.get("steps", {}), raw.get("sweep", {})
        for name, step in steps.items() if isinstance(steps, dict) else ():
            kind = step.get("kind") if isinstance(step, dict) else None
            if isinstance(kind, str) and kind in FORMER_NAMES:
                raise ValueError(
                    f"steps.{name}.kind = {kind!r} is called {FORMER_NAMES[kind]!r} now: write that"
                )
        for step in sweep if isinstance(sweep, dict) and isinstance(steps, dict) else ():
            if step not in steps:
                raise ValueError(
                    f"sweep.{step} names a step that [steps] does not have: "
                    + did_you_mean(step, steps)
                )
        return with_sweep(with_rounds(with_training(raw)))

    @model_validator(mode="after")
    def _chains(self) -> Pipeline:
        deliveries = len(self.variants) * len(self.seeds)
        if deliveries > _MOST_DELIVERIES:
            raise ValueError(
                f"variants times seeds are {deliveries:,}, and at most {_MOST_DELIVERIES:,} can be "
                "planned: ask for fewer"
            )
        for variant, chain in self.variants.items():
            if variant.lower() in _TAKEN or Path(variant).suffix in _TAKEN_SUFFIXES:
                raise ValueError(
                    f"variants.{variant} has the name of something else in the run's folder: "
                    "choose another name"
                )
            for step in chain.short():
                if step not in self.steps:
                    raise ValueError(
                        f"variants.{variant} names the step {step!r}, which [steps] does not have: "
                        f"{did_you_mean(step, self.steps)}"
                    )
            if said := self._mistake(list(chain.short())):
                raise ValueError(f"variants.{variant} {said}")
        return self

    @model_validator(mode="after")
    def _devices_differ(self) -> Pipeline:
        titles = self.device_titles
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"devices has {title!r} twice: give each a label of its own")
        delivered = {form for variant in self.variants for form in self.delivered(variant)[1]}
        for device in self.devices:
            runs = device.find().formats
            # A try with other formats leaves an optional device out.
            if not device.optional and not delivered & set(runs):
                raise ValueError(f"devices: {device.title} {none_delivered(runs)}")
        return self

    @model_validator(mode="after")
    def _recipe_is_given(self) -> Pipeline:
        if RECIPE in self.formats:
            raise ValueError(
                f"formats has {RECIPE}, which needs a recipe: deliver it by a step of the kind "
                "export, with recipe"
            )
        return self

    @model_validator(mode="after")
    def _batch_is_of_a_file(self) -> Pipeline:
        if self.batch != DEFAULT_BATCH:
            delivered = [form for name in self.variants for form in self.delivered(name)[1]]
            if not any(map(has_batch, delivered)):
                raise ValueError(
                    f"batch is {self.batch!r}, and {', '.join(dict.fromkeys(delivered))} take any "
                    "number of examples: leave batch out, or add 'tflite' to formats"
                )
        return self

    @model_validator(mode="after")
    def _budget_fits(self) -> Pipeline:
        """Names in rules are those of variants and of formats.

        That a variant is delivered in a format is not asked here: a try with other formats than
        a name in the budget is not a mistake.
        """
        if self.budget is not None:
            try:
                if self.figure is not None:
                    self.budget.of(self.figure)
            except UsageError as error:
                raise ValueError(f"budget.{error}") from None
            formats = dict.fromkeys(self.variants, tuple(FORMATS))
            for said in mistakes(self.budget, formats, self.device_titles):
                raise ValueError(f"budget: {said}")
        return self

    def device(self, title: str) -> DeviceSpec:
        """The device that tables call so.

        Args:
            title: one of `device_titles`.
        """
        return next(each for each in self.devices if each.title == title)

    @property
    def device_titles(self) -> list[str]:
        """What tables and budgets call the devices."""
        return [device.title for device in self.devices]

    @property
    def figure(self) -> Figure | None:
        """What the run is compared by; None where only its model can tell."""
        if self.task is not None:
            return self.task.compared()
        # What a model of the user's own is compiled for is known when it is loaded.
        return TaskSpec().compared() if self.model.reference.is_net else None

    def _mistake(self, names: list[str]) -> str | None:
        """What is wrong with the order of a chain."""
        chain = [self.steps[name] for name in names]
        if not self.model.reference.pretrained and not (chain and chain[0].trains_new):
            return "must begin with a step that trains: a new model has nothing to remove"
        for place, step in enumerate(chain):
            if step.delivered_formats is not None and place + 1 < len(chain):
                return f"goes on after {step.kind}, which must be last: it only says what to export"
            before = list(zip(names[:place], chain[:place], strict=True))
            for earlier, done in before:
                if done.is_for_files and step.delivered_formats is None:
                    return (
                        f"goes on with {names[place]!r} after {earlier!r}, which is made for the "
                        f"files alone: put {earlier!r} last"
                    )
            if said := step.mistake(names[place], before, self.model.reference.path is not None):
                return said
        formats = chain[-1].delivered_formats if chain else None
        for name, step in zip(names, chain, strict=True):
            if said := step.misfit(self.formats if formats is None else formats):
                return f"has the step {name!r}, which {said}"
        return None

    def delivered(self, variant: str) -> tuple[Chain, tuple[str, ...], int]:
        """How a variant is made and delivered.

        Args:
            variant: its name.

        Returns:
            The steps that change the model, the formats, and how many training images calibrate
            those that are quantized.
        """
        chain = self.variants[variant]
        last = None if chain.last is None else self.steps[chain.last]
        if last is None or last.delivered_formats is None:
            return chain, self.formats, CALIBRATION_IMAGES
        return chain.without_last(), last.delivered_formats, last.calibration_images

    def delivery_options(self, variant: str) -> dict[str, Any]:
        """What `tfprune.export` is told beside the formats of a variant."""
        last = self.variants[variant].last
        return {} if last is None else self.steps[last].delivery_options


def checked_seeds(seeds: Iterable[int]) -> list[int]:
    """Seeds that are asked for instead of a pipeline's.

    Raises:
        UsageError: one is out of bounds, or comes twice.
    """
    seeds = list(seeds)
    for seed in seeds:
        if not 0 <= seed <= _LARGEST_SEED:
            raise UsageError(f"seed {seed} must be from 0 to {_LARGEST_SEED}")
    try:
        distinct(tuple(seeds))
    except ValueError as error:
        raise UsageError(f"seeds: {error}") from None
    return seeds


def _require_bounds(raw: dict[str, Any]) -> None:
    """Refuses what no pipeline means, before anything is made of it.

    Raises:
        ValueError: a number, a text or the nesting is beyond all bounds.
    """
    todo: list[tuple[tuple[str, ...], Any]] = [((str(key),), value) for key, value in raw.items()]
    while todo:
        place, value = todo.pop()
        where = ".".join(each[:_SHOWN] for each in place)
        if len(place) > _DEEPEST:
            raise ValueError(f"{where[:_SHOWN]}... nests deeper than {_DEEPEST} levels")
        if isinstance(value, dict):
            todo += [((*place, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            todo += [((*place, f"#{number}"), inner) for number, inner in enumerate(value, 1)]
        elif isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError(f"{where} is a text of more than {_LONGEST:,} characters")
        elif isinstance(value, int | float) and place[0] != "seeds":
            largest = _LARGEST_OF_BUDGET if place[0] == "budget" else _LARGEST
            # A value that is not a number cannot be compared; the tables refuse it.
            if abs(value) > largest:
                raise ValueError(f"{where} is a number beyond {largest:,}")


def load_pipeline(path: str | Path, settings: Sequence[str] = ()) -> Pipeline:
    """Reads and checks a pipeline file.

    Args:
        path: a TOML file.
        settings: values that replace the file's, `KEY=VALUE` each; see `override`.

    Raises:
        TfpruneError: the file cannot be read.
        UsageError: it is not TOML, or has a key or value that a pipeline cannot have; the message
            names the file, the key and what is allowed.
    """
    path = Path(path)
    raw = override(read_toml(path), settings, list(Pipeline.model_fields))
    try:
        return Pipeline.model_validate(raw)
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_error(error, Pipeline)}") from error
