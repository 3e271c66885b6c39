"""Options that derive from the tables of steps: what a pipeline can say, a command can, too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo

from tfprune.cli import options
from tfprune.errors import UsageError
from tfprune.pipeline.steps import KINDS, Step
from tfprune.pipeline.steps.training import TrainingStep

# For a field without a bound of its own; pipeline files have the same limit.
_LARGEST = 10**9
# More names than these stand in the help text, and not in the brackets before it.
_FEW_NAMES = 5
_NO_DEFAULT: Any = object()


def from_table(
    table: type[BaseModel], *, leave_out: Collection[str] = (), **defaults: Any
) -> options.Decorator:
    """An option for each field of a step's table: its name, type, range, default and help.

    Example:
        ```python
        @click.command("prune")
        @from_table(PruneStep, leave_out=("teacher",), epochs=5, sparsity=0.8)
        def prune_command(epochs, sparsity, begin, **given): ...
        ```

    Args:
        table: the table of a kind of step, or of a training.
        leave_out: fields without an option.
        **defaults: what a command has in place of the table's default.
    """
    names = [name for name in table.model_fields if name not in ("kind", *leave_out)]
    # What a step has beyond its training comes first.
    names.sort(key=lambda name: name in TrainingStep.model_fields)
    return options.stacked(
        *(option(table, name, default=defaults.get(name, _NO_DEFAULT)) for name in names)
    )


def option(
    table: type[BaseModel],
    field: str,
    flag: str = "",
    *,
    default: Any = _NO_DEFAULT,
    help: str = "",
) -> options.Decorator:
    """The option for one field of a table.

    Args:
        table: the table.
        field: its name there, and as an argument of the command.
        flag: the option, `--` and the name of the field if not given.
        default: in place of the table's.
        help: in place of the field's description.
    """
    info = table.model_fields[field]
    if default is _NO_DEFAULT:
        default = None if info.is_required() else info.default
    flag = flag or f"--{field.replace('_', '-')}"
    text = help or info.description or ""
    text = f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') or not text else '.'}"
    kind, bounds = _resolved(info.annotation, list(info.metadata))
    shown: dict[str, Any] = {"show_default": default is not None and default is not False}
    if kind is bool:
        name = f"{flag}/--no-{flag[2:]}" if default else flag
        return click.option(name, field, is_flag=True, default=default, help=text, **shown)
    if get_origin(kind) is dict:
        return click.option(
            flag,
            field,
            multiple=True,
            callback=_by_layer(_type(*_resolved(get_args(kind)[1], []))),
            metavar="LAYER=SHARE",
            help=f"{text} Such as 'dense*=0.2'; repeatable, the first counts.",
        )
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return click.option(
            flag,
            field,
            multiple=True,
            type=_type(*_resolved(inner, [])),
            metavar=None if get_origin(inner) is Literal else "LAYER",
            help=f"{text} Repeatable.",
        )
    metavar = "NAME" if get_origin(kind) is Literal and len(get_args(kind)) > _FEW_NAMES else None
    return click.option(
        flag, field, type=_type(kind, bounds), default=default, metavar=metavar, help=text, **shown
    )


def _resolved(annotation: Any, notes: list[Any]) -> tuple[Any, dict[str, float]]:
    """A type without `Annotated` and `| None`, and the bounds of its numbers."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            for note in more:
                notes += note.metadata if isinstance(note, FieldInfo) else [note]
                if isinstance(note, BeforeValidator):
                    # The table itself reads the text.
                    return str, {}
        elif get_origin(annotation) in (Union, UnionType):
            (annotation,) = (each for each in get_args(annotation) if each is not type(None))
        else:
            break
    bounds = {
        bound: getattr(note, bound)
        for note in notes
        for bound in ("ge", "gt", "le", "lt")
        if getattr(note, bound, None) is not None
    }
    return annotation, bounds


def _type(kind: Any, bounds: dict[str, float]) -> click.ParamType:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is int:
        low = bounds.get("ge", bounds.get("gt", 0) + 1)
        return click.IntRange(int(low), int(bounds.get("le", _LARGEST)))
    if kind is float:
        low = bounds.get("ge", bounds.get("gt", -_LARGEST))
        high = bounds.get("le", bounds.get("lt", _LARGEST))
        return options.NumberRange(
            low, high, f"{'low' * ('gt' in bounds)} {'high' * ('lt' in bounds)}"
        )
    return click.STRING


def _by_layer(number: click.ParamType) -> Callable[..., dict[str, float]]:
    """Reads `dense*=0.2`, given several times."""

    def read(
        ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for value in values:
            layer, _, share = value.rpartition("=")
            try:
                float(share)
            except ValueError:
                layer = ""
            if not layer:
                raise click.BadParameter(f"{value!r} is not of the form dense*=0.2")
            found.setdefault(layer, number.convert(share, param, ctx))
        return found

    return read


def training_options(
    kind: str, *, leave_out: Collection[str] = (), **defaults: Any
) -> options.Decorator:
    """The options of a step that trains, its teacher and its seed.

    Args:
        kind: of the step.
        leave_out: fields without an option.
        **defaults: what the command has in place of the table's default.
    """
    return options.stacked(
        from_table(KINDS[kind], leave_out=("teacher", "keep", *leave_out), **defaults),
        click.option(
            "--distill",
            "teacher",
            type=options.KERAS_FILE,
            metavar="TEACHER.keras",
            help="Learn from this model's outputs as well, such as the dense model's.",
        ),
        click.option("--seed", type=options.SEED, default=0, show_default=True),
    )


def read_step(kind: str, given: Mapping[str, Any]) -> Step:
    """The step that the options of a command ask for, checked.

    Args:
        kind: of the step.
        given: values by field; None where an option was not given.

    Raises:
        UsageError: the table refuses them.
    """
    values = {name: value for name, value in given.items() if value is not None}
    try:
        return KINDS[kind].model_validate({"kind": kind, **values})
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"] or first["loc"][0] not in values:
            raise UsageError(f"tfprune {kind}: {message}") from error
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first['input']}: {message}") from error
