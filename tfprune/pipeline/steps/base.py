"""What all kinds of steps share: their table, what they work with, and their registry."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfprune.vocabulary import IMPORTANCES, ImportanceName, explained

if TYPE_CHECKING:
    import keras

    from tfprune.data import Dataset, Examples
    from tfprune.tasks import Task

# Where a step keeps what it resumes from; it is not a part of its result.
SCRATCH = "scratch"

# More labelled examples hardly change a ranking.
_RANKING_IMAGES = 512

_T = TypeVar("_T")

Share = Annotated[float, Field(gt=0, le=1)]
LeftAlone = Annotated[
    tuple[str, ...], Field(description="layers left alone, by name, path or glob")
]
Importance = Annotated[
    ImportanceName, Field(description=f"how filters are ranked: {explained(IMPORTANCES)}")
]


class Table(BaseModel):
    """A table of a pipeline file: unknown keys are refused, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Context:
    """What a step works with.

    Attributes:
        dataset: the images, of which a step uses training and validation only; None where there
            are none, and then nothing is trained, recalibrated or evaluated.
        seed: the seed of the run.
        folder: a directory of the step's own, which survives a kill and becomes its result.
        label: the name of the step in progress bars; None for silence.
        after: seconds of work after this step, from the seconds an epoch takes; for the bars.
        origin: the model of the chain as it was after an epoch of its first training, drawn with
            a seed; epoch 0 is its initialisation.
        earlier: the model as an earlier step of the chain left it, by the step's name.
        find_task: tells what a model of the chain is trained for; None finds it by the model and
            the data.
    """

    dataset: Dataset | None
    seed: int
    folder: Path
    label: str | None = None
    after: Callable[[float], float] | None = None
    origin: Callable[[int, int], keras.Model] | None = None
    earlier: Callable[[str], keras.Model] | None = None
    find_task: Callable[[keras.Model], Task] | None = None

    def task(self, model: keras.Model) -> Task:
        """What a model is trained for."""
        from tfprune.tasks import find_task

        if self.find_task is not None:
            return self.find_task(model)
        return find_task(model, None, self.dataset)

    @property
    def images(self) -> Dataset:
        """The images, for a step that cannot do without."""
        if self.dataset is None:
            raise ValueError("this step needs images")
        return self.dataset

    @property
    def labelled(self) -> Examples | None:
        """The training examples that an importance may look at, with targets and weights."""
        return None if self.dataset is None else self.dataset.train.sample(_RANKING_IMAGES)

    def validated(self, **models: keras.Model) -> dict[str, dict[str, float]]:
        """What to record of some models: the task's figure on the validation examples.

        Args:
            **models: by the names that the record has.

        Returns:
            `{"validation_accuracy": {name: value}}`, with the name of the task's figure; empty
            without data.
        """
        from tfprune.formats import load
        from tfprune.measure import evaluate

        if self.dataset is None:
            return {}
        values, figure = {}, ""
        for name, model in models.items():
            found = evaluate(load(model), self.dataset.validation, self.task(model))
            values[name], figure = found.value, found.figure
        return {f"validation_{figure}": values}


def save(model: keras.Model, folder: Path, name: str = "model") -> None:
    """Writes the Keras file of a model within a run.

    A run knows its task: what the file cannot keep of it is compiled again when the file is read,
    so a warning would only repeat itself. A quantization-aware model keeps its rounding: later
    steps train it further, and exports take its ranges.

    Args:
        model: as a step leaves it.
        folder: of the file.
        name: the stem of the file.
    """
    from tfprune.artifacts import export
    from tfprune.formats.keras_file import write_keras
    from tfprune.formats.source import finished
    from tfprune.model.compiled import kept_by_file
    from tfprune.quantize import is_quantize_aware

    if is_quantize_aware(model):
        write_keras(finished(model), folder / f"{name}.keras")
        return
    _, lost = kept_by_file(model)
    export(finished(model) if lost else model, folder, ["keras"], name=name)


Result = tuple["keras.Model", dict[str, Any]]


class Step(Table):
    """One step of a chain; a subclass that names its `kind` is a kind of step.

    Everything about a kind is in its class. A pipeline file, its JSON Schema, the plan, the
    forecast, the report and the options of commands read it from there:

    ```python
    class HalveStep(Step):
        "Halves every weight."

        kind: Literal["halve"]

        def perform(self, model, context):
            model.set_weights([weight / 2 for weight in model.get_weights()])
            return model, {}

        def describe(self):
            return "halves every weight"
    ```

    Attributes:
        kind: the word in a pipeline file.
        former_names: words that pipeline files of earlier versions have in its place.
        revision: raise it when a step would give another result for the same specification.
        trains_new: whether a chain on a model that is not trained may begin with it.
        reshapes: whether it changes the shapes of weights.
        shares_values: whether weights share few values after it, which a training has to hold.
        is_for_files: whether it is made for the files alone, so that no step changes it after it.
    """

    kind: str

    former_names: ClassVar[tuple[str, ...]] = ()
    revision: ClassVar[int] = 0
    trains_new: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    shares_values: ClassVar[bool] = False
    is_for_files: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        names = get_args(cls.model_fields["kind"].annotation)
        if not names:
            return
        if _union is not None:
            raise TypeError(
                f"the step kind {names[0]!r} comes too late: import {cls.__module__} before "
                "tfprune.pipeline.spec, which makes the tables of pipeline files"
            )
        KINDS[names[0]] = cls
        FORMER_NAMES.update(dict.fromkeys(cls.former_names, names[0]))

    @abstractmethod
    def perform(self, model: keras.Model, context: Context) -> Result:
        """Does the step.

        Args:
            model: what the step before left; may be changed.
            context: data, seed and a folder.

        Returns:
            The model after the step, and what to record of it.
        """

    @abstractmethod
    def describe(self) -> str:
        """What the step does, in words that follow the name of the step.

        A function that it calls takes the step as an argument: then the values it reads count as
        told, and the others are listed behind the sentence.
        """

    def check_installed(self) -> None:
        """Checks that what it needs is installed, before any training.

        Raises:
            UsageError: something is missing; the message says how to install it.
        """

    @property
    def needs_images(self) -> str | None:
        """What needs labelled examples, for an error; None where the step does without."""
        return None

    @property
    def delivered_formats(self) -> tuple[str, ...] | None:
        """The formats of the variant, for a kind that ends its chain and changes no model."""
        return None

    @property
    def calibration_images(self) -> int:
        """How many training images calibrate the formats of a kind that delivers."""
        return CALIBRATION_IMAGES

    @property
    def delivery_options(self) -> dict[str, Any]:
        """What `tfprune.export` is told beside the formats, for a kind that delivers."""
        return {}

    @property
    def epochs_to_train(self) -> int:
        """How many epochs it trains."""
        return 0

    @property
    def macs_kept(self) -> float:
        """The share of the model's MACs that is left after it, about; for a forecast."""
        return 1.0

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """What is wrong with its place in a chain, in words that follow the name of the variant.

        Args:
            name: its name in the pipeline.
            before: the steps before it, with their names.
            from_file: whether the pipeline starts from a Keras file.
        """
        return None

    def misfit(self, formats: Sequence[str]) -> str | None:
        """Why it is of no use for the formats of its variant, in words that follow its name.

        Args:
            formats: in which the variant is delivered.
        """
        return None


# Beyond a few hundred images the ranges of activations hardly change.
CALIBRATION_IMAGES = 500

KINDS: dict[str, type[Step]] = {}
"""The kinds of steps by their words in pipeline files; a class of `Step` is added by itself."""
FORMER_NAMES: dict[str, str] = {}
"""The kinds that were renamed: the former word to the present one."""


_union: Any = None


def any_step() -> Any:
    """The type of a step of any kind, for a table that holds steps.

    From then on the kinds are known, and no other can be added.
    """
    global _union
    if _union is None:
        tables: list[Any] = list(KINDS.values())
        members = reduce(operator.or_, tables)
        _union = Annotated[members, Field(discriminator="kind")]  # type: ignore[valid-type]
    return _union


def distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    """Refuses a list in which a value comes twice.

    Raises:
        ValueError: one does.
    """
    seen: set[_T] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value} comes twice")
        seen.add(value)
    return values


def read_step(specification: Mapping[str, Any]) -> Step | None:
    """The step that a record or a pipeline of any version specifies; None where none fits.

    Keys that the kind does not have are left out, and a former name of a kind stands for it.

    Example:
        ```python
        read_step({"kind": "slim", "macs": 0.5}).macs_kept  # 0.5
        read_step({"kind": "rewind", "to": 3})  # None
        ```
    """
    name = str(specification.get("kind"))
    kind = FORMER_NAMES.get(name, name)
    if kind not in KINDS:
        return None
    table = KINDS[kind]
    known = {key: value for key, value in specification.items() if key in table.model_fields}
    try:
        return table.model_validate({**known, "kind": kind})
    except ValidationError:
        return None


def describe(specification: Mapping[str, Any], given: Collection[str] | None = None) -> str:
    """What a step does, with every parameter that it was given.

    Example:
        ```python
        describe({"kind": "quantize-weights", "bits": 5})
        # "rounds the weights of each output channel to 31 values"
        ```

    Args:
        specification: as the step's record holds it, whichever version wrote it.
        given: the keys that were set; those that are not empty, if not given. One that the
            sentence of its kind does not tell is listed behind it.
    """
    step = read_step(specification)
    if step is None:
        # A kind of another version is still told, if less well.
        values = {key: value for key, value in specification.items() if not is_empty(value)}
        kind = str(values.pop("kind", "step"))
        return f"{kind}: {_listed(values)}" if values else kind
    told = _Told(step)
    sentence = type(step).describe(cast("Step", told))
    if given is None:
        given = [key for key, value in specification.items() if not is_empty(value)]
    left = {
        key: specification[key]
        for key in given
        if key in specification and key != "kind" and key not in told.fields
    }
    return f"{sentence} ({_listed(left)})" if left else sentence


class _Told:
    """A step that notes which of its fields a sentence reads."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.fields: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.fields.add(name)
        return getattr(self._step, name)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def is_empty(value: Any) -> bool:
    """Whether a value of a specification stands for "not set"; 0 is a number like others."""
    return value is None or value is False or value in ("", [], {})
