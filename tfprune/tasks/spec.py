"""The `[task]` table: what a model is trained for. Free of Keras, so that checks are fast."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pydantic

from tfprune.errors import UsageError, did_you_mean
from tfprune.figures import Direction, Figure
from tfprune.functions import file_function, is_file_function
from tfprune.tasks import metrics
from tfprune.validation import describe_error, read_toml

Kind = Literal["classification", "binary", "multi-label", "segmentation", "regression"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A Keras identifier, FILE.py:NAME, or Keras' table with the keys `class_name` and `config`.
Identifier = str | dict[str, Any]

LOSS = "loss"
"""The name of the loss as a figure."""

_IDENTIFIER = {"class_name", "config"}

FIGURES: dict[Kind, str] = {
    "classification": "accuracy",
    "binary": "accuracy",
    "multi-label": "binary_accuracy",
    "segmentation": "mean_iou",
    "regression": "mae",
}
"""What models are compared by where the kind is all that is said."""


class TaskSpec(pydantic.BaseModel):
    """What a model is trained for, as a person writes it: the `[task]` table.

    Example:
        ```python
        TaskSpec(kind="regression", figure="mae", unit="mm")
        TaskSpec(kind={"sign": "classification", "angle": "regression"}, figure="angle/mae")
        TaskSpec(loss="my_losses.py:focal", metrics=["my_losses.py:dice"], figure="dice",
                 better="higher")
        ```

    A kind brings its loss and its metric; `loss`, `metrics` and `figure` replace them.

    | kind | outputs | targets | loss | figure |
    | --- | --- | --- | --- | --- |
    | classification | one a class | class numbers, or one-hot | cross-entropy | accuracy |
    | binary | one | 0 or 1 | binary cross-entropy | accuracy |
    | multi-label | one a label | 0 or 1 a label | binary cross-entropy | binary_accuracy |
    | segmentation | one a class and pixel | a class a pixel | cross-entropy | mean_iou |
    | regression | numbers | numbers | mse | mae |

    Attributes:
        kind: one of the kinds above, for all outputs; or a table with one for each output.
        loss: a Keras identifier such as "huber"; `FILE.py:NAME`, which is a function, a class or
            an instance; or Keras' table `{ class_name = "Huber", config = { delta = 2.0 } }`.
            Several outputs take a list or a table of them by the outputs' names.
        metrics: a list of such identifiers; a table of lists by outputs where there are several.
        loss_weights: of several losses: a list, or a table by outputs.
        figure: the metric that models and files are compared by, or "loss"; `OUTPUT/METRIC` where
            several outputs have the metric.
        better: "higher" or "lower"; known for the metrics of Keras.
        unit: what stands behind the figure, such as "mm".
        from_logits: whether the outputs are logits; recognised where the model ends in a softmax,
            a sigmoid or neither.
        class_weights: how much the examples of each class count in the training loss: a table by
            the classes' names or numbers, or "balanced": examples / (classes * examples of the
            class), counted in the train split.
        top: adds the metric `top_K_accuracy` to a classification: the share of examples whose
            class is among the K likeliest.
        ignore_class: the number in the targets of a segmentation that stands for no class.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind | dict[str, Kind] | None = pydantic.Field(
        None, description=f"one of {', '.join(KINDS)}; a table by outputs where there are several"
    )
    loss: Identifier | list[Identifier | None] | None = pydantic.Field(
        None, description="a Keras identifier, FILE.py:NAME, or several by outputs"
    )
    metrics: (
        list[Identifier | list[Identifier]] | dict[str, Identifier | list[Identifier]] | None
    ) = pydantic.Field(None, description="Keras identifiers or FILE.py:NAME, or several by outputs")
    loss_weights: list[float] | dict[str, float] | None = pydantic.Field(
        None, description="of the losses of several outputs"
    )
    figure: str | None = pydantic.Field(
        None, description="the metric that models are compared by, or loss"
    )
    better: Direction | None = pydantic.Field(
        None, description="the better direction of a metric of your own"
    )
    unit: str | None = pydantic.Field(None, description="the unit of the figure, such as mm")
    from_logits: bool | None = pydantic.Field(
        None, description="whether the outputs are logits, where that cannot be recognised"
    )
    class_weights: Literal["balanced"] | dict[str, float] | None = pydantic.Field(
        None, description="of the training loss, by classes, or balanced"
    )
    top: int | None = pydantic.Field(
        None, ge=2, description="adds the top-K accuracy of a classification"
    )
    ignore_class: int | None = pydantic.Field(
        None, description="the number in a segmentation's targets that is not a class"
    )

    @classmethod
    def read(cls, text: str) -> TaskSpec:
        """The task of a command line: a kind, or the path of a TOML file.

        Example:
            ```python
            TaskSpec.read("segmentation").kind  # "segmentation"
            TaskSpec.read("task.toml")  # the keys of the file, or of its [task] table
            ```

        Raises:
            UsageError: it is neither, or the file has a mistake.
            TfpruneError: the file cannot be read.
        """
        if not text.endswith(".toml"):
            if text not in KINDS:
                advice = did_you_mean(text, KINDS)
                raise UsageError(f"task {text!r} is unknown: {advice} (or give a TOML file)")
            return cls.model_validate({"kind": text})
        document = read_toml(Path(text))
        table = document.get("task", document)
        try:
            return cls.model_validate(table)
        except pydantic.ValidationError as error:
            within = "task" if "task" in document else ""
            raise UsageError(f"{text}: {describe_error(error, cls, within)}") from error

    def compared(self) -> Figure | None:
        """The figure that models are compared by, as far as the model is not needed to tell.

        Example:
            ```python
            TaskSpec(kind="regression", unit="mm").compared().text(1.25)  # "1.25 mm"
            ```

        Returns:
            None where only the model, or a metric of the user's own, can tell.
        """
        if self.figure is None:
            if self.metrics is not None or self.loss is not None or isinstance(self.kind, dict):
                return None
            row = metrics.metric(FIGURES[self.kind or "classification"])
            assert row is not None
            return row.figure(self.unit)
        output, _, name = self.figure.rpartition("/")
        row = metrics.metric(name)
        if row is None or (isinstance(self.kind, dict) and not output):
            return None
        figure = row.figure(self.unit)
        return replace(figure, name=f"{output}_{figure.name}") if output else figure

    @pydantic.field_validator("kind", mode="before")
    @classmethod
    def _is_a_kind(cls, value: Any) -> Any:
        # Of a union, pydantic describes the first member only.
        for kind in value.values() if isinstance(value, dict) else [value]:
            if isinstance(kind, str) and kind not in KINDS:
                raise ValueError(f"{kind!r} is unknown: {did_you_mean(kind, KINDS)}")
        return value

    @pydantic.field_validator("class_weights", mode="before")
    @classmethod
    def _are_class_weights(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "balanced":
            raise ValueError(f'{value!r} is unknown: give "balanced" or a table of classes')
        for name, weight in value.items() if isinstance(value, dict) else ():
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"{name} = {weight!r} is not a number of at least 0: correct it")
        return value

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> TaskSpec:
        for name in self._metric_names():
            if not is_file_function(name) and metrics.metric(name) is None:
                raise ValueError(
                    f"metric {name!r} is unknown: {did_you_mean(name, metrics.names(), _OTHERWISE)}"
                )
        if self.figure is not None:
            self._check_figure(self.figure)
        elif self.unit or self.better:
            key = "unit" if self.unit else "better"
            if self.kind != "regression" or key == "better":
                raise ValueError(f"{key} needs figure: name the metric that it is about")
        kinds = set(self.kind.values()) if isinstance(self.kind, dict) else {self.kind}
        if self.top is not None and not kinds & {"classification", None}:
            raise ValueError('top needs kind = "classification"')
        if self.ignore_class is not None and not kinds & {"segmentation", None}:
            raise ValueError('ignore_class needs kind = "segmentation"')
        return self

    def _check_figure(self, figure: str) -> None:
        name = figure.rsplit("/", 1)[-1]
        row = metrics.metric(name)
        known = "lower" if name == LOSS else row.better if row else None
        own = {each.rsplit(":", 1)[-1] for each in self._metric_names() if is_file_function(each)}
        if name in own or (row is None and name != LOSS):
            # The name of an own metric may be another than that of its function.
            if self.better is None:
                if not own:
                    raise ValueError(
                        f"figure = {figure!r} is unknown: "
                        f"{did_you_mean(name, [*metrics.names(), LOSS], _OTHERWISE)}"
                    )
                raise ValueError(
                    f"better is missing: say whether a higher or a lower {name} is better"
                )
        elif known is not None and self.better not in (None, known):
            raise ValueError(f"better = {self.better!r} is wrong: a {known} {name} is better")
        if self.unit and row is not None and row.unit:
            raise ValueError(f"unit = {self.unit!r} does not fit {name}: it is given in percent")

    def files(self) -> list[Path]:
        """The files of the losses and metrics that are `FILE.py:NAME`."""
        losses = self.loss if isinstance(self.loss, list) else [self.loss]
        if isinstance(self.loss, dict) and not is_identifier(self.loss):
            losses = list(self.loss.values())
        names = [*(identifier_name(each) for each in losses if each), *self._metric_names()]
        return sorted({file_function(each).file for each in names if is_file_function(each)})

    def _metric_names(self) -> list[str]:
        if self.metrics is None:
            return []
        entries = self.metrics.values() if isinstance(self.metrics, dict) else self.metrics
        flat = [x for entry in entries for x in (entry if isinstance(entry, list) else [entry])]
        return [identifier_name(each) for each in flat]


_OTHERWISE = "give a metric of Keras or FILE.py:NAME"


def is_identifier(value: object) -> bool:
    """Whether a table is Keras' description of one object, not a table by outputs.

    Example:
        >>> is_identifier({"class_name": "Huber", "config": {"delta": 2.0}})
        True
    """
    return isinstance(value, dict) and "class_name" in value and set(value) <= _IDENTIFIER


def identifier_name(identifier: Identifier) -> str:
    """The name in an identifier.

    Example:
        >>> identifier_name({"class_name": "Huber", "config": {"delta": 2.0}})
        'Huber'
    """
    return str(identifier["class_name"]) if isinstance(identifier, dict) else identifier
