"""Options that several commands take."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.files import strict_json
from tfprune.vocabulary import BATCHES, DEFAULT_BATCH, LARGEST_BATCH, Batch, explained

if TYPE_CHECKING:
    from tfprune.data import Dataset
    from tfprune.devices import Device
    from tfprune.pipeline.spec import DataSpec, ModelSpec
    from tfprune.report.run import Run
    from tfprune.tasks import TaskSpec

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# A folder may be a SavedModel, of which the loader says more than click would.
KERAS_FILE = click.Path(path_type=Path)

# Far above any sensible value, and below what a counter holds.
_MOST = 1_000_000


class NumberRange(click.ParamType):
    """A finite number in a range, `low` and `high` among it unless `open` names them.

    click's own range lets `nan` pass, which is neither below nor above anything.
    """

    name = "float"

    def __init__(self, low: float, high: float, open: str = "") -> None:
        self.low, self.high, self.open = low, high, open

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reads a number."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a number", param, ctx)
        above = number > self.low if "low" in self.open else number >= self.low
        below = number < self.high if "high" in self.open else number <= self.high
        if not (math.isfinite(number) and above and below):
            self.fail(f"{value} is not a number {self._range()}", param, ctx)
        return number

    def _range(self) -> str:
        low = f"{'above' if 'low' in self.open else 'at least'} {self.low:g}"
        high = f"{'below' if 'high' in self.open else 'at most'} {self.high:g}"
        return f"{low} and {high}"


class _Batch(click.ParamType):
    """A number of examples, or a word that stands for some."""

    name = "batch"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What the help shows for the value."""
        return "|".join(["N", *BATCHES])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Batch:
        """Reads a batch."""
        if value in BATCHES:
            word: Batch = value
            return word
        return int(click.IntRange(1, LARGEST_BATCH).convert(value, param, ctx))


batch = click.option(
    "--batch",
    type=_Batch(),
    default=DEFAULT_BATCH,
    show_default=True,
    help=f"Examples that TFLite files take at once: a number, or {explained(BATCHES)}.",
)


COUNT = click.IntRange(1, _MOST)
"""How often, or how many."""
SEED = click.IntRange(0, 2**32 - 1)
"""What NumPy, scikit-learn and Keras take."""


def keras_name(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Wants a `.keras` file that can be written, where one is given."""
    if value is None:
        return None
    if value.suffix != ".keras":
        raise click.BadParameter(f"{shown(value)} does not end in .keras")
    return writable(ctx, param, value)


def writable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Wants a file that can be written, where one is given."""
    from tfprune.files import check_writable

    if value is not None and not ctx.resilient_parsing:
        check_writable(value)
    return value


def folder(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Wants a folder that files can be written in."""
    from tfprune.files import check_folder

    if not ctx.resilient_parsing:
        check_folder(value)
    return value


def shown(path: str | os.PathLike[str]) -> str:
    """A path as it can be printed, whatever bytes it is of."""
    return click.format_filename(path)


output = click.option(
    "-o",
    "--output",
    required=True,
    callback=keras_name,
    type=click.Path(path_type=Path),
    help="The .keras file to write.",
)
runs_folder = click.option(
    "-o",
    "--out",
    callback=folder,
    type=click.Path(path_type=Path),
    default=Path("saved_models"),
    show_default=True,
    help="The run is written to a folder in here.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def print_json(document: Any) -> None:
    """Prints one JSON document; null stands for what is not a number, which JSON does not have."""
    click.echo(strict_json(document))


data_dir = click.option(
    "--data-dir",
    metavar="DIR",
    envvar="TFDS_DATA_DIR",
    show_envvar=True,
    help="Where tensorflow-datasets keeps its data; its own default if not given.",
)


def _import(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    """Imports modules, here and in the processes that load models for this command."""
    if not values or ctx.resilient_parsing:
        return
    from tfprune.quiet import start_keras

    start_keras()
    from tfprune.functions import IMPORTS
    from tfprune.model.loading import import_layers

    import_layers(*values)
    before = os.environ.get(IMPORTS)
    # A process that starts in another folder finds the same file.
    paths = [str(Path(each).resolve()) if each.endswith(".py") else each for each in values]
    os.environ[IMPORTS] = os.pathsep.join([*paths, *([before] if before else [])])

    def restore() -> None:
        if before is None:
            os.environ.pop(IMPORTS, None)
        else:
            os.environ[IMPORTS] = before

    ctx.call_on_close(restore)


imports = click.option(
    "--import",
    "imported",
    multiple=True,
    callback=_import,
    expose_value=False,
    metavar="FILE.py",
    help="Import custom layers first: a Python file, or the name of a module; repeatable. "
    "TFPRUNE_IMPORT lists more of them.",
)


def _image_size(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Reads `64x96`, height first."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a size in pixels such as 64x64, height first")
    return int(parts[0]), int(parts[-1])


def data(required: bool, why: str) -> Decorator:
    """`--data` and how it is read; the command gets a `DataSpec` as `data`, or None.

    What can be seen without reading the data is checked before the command begins.

    Args:
        required: whether the command needs data.
        why: what it does with them, for the help.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_data(*args: Any, data_name: str | None, data_dir: str | None, **given: Any) -> Any:
            asked = {field: given.pop(f"data_{field}") for field in _DATA_FIELDS}
            spec = _data_spec(data_name, data_dir, asked)
            return command(*args, data=spec, data_dir=data_dir, **given)

        return with_data

    return stacked(
        click.option(
            "--data",
            "data_name",
            required=required,
            metavar="NAME|FOLDER|FILE",
            help="A data set of tensorflow-datasets; `digits`, which is embedded; a folder of "
            "images; a file of arrays or an index; or FILE.py:FUNCTION. See `tfprune.data.load`. "
            f"{why[:1].upper()}{why[1:]}.",
        ),
        data_dir,
        click.option(
            "--data-option",
            "data_options",
            multiple=True,
            callback=assignments,
            metavar="KEY=VALUE",
            help="An argument of the data's source, such as of FUNCTION; repeatable.",
        ),
        click.option(
            "--image-size",
            "data_image_size",
            callback=_image_size,
            metavar="HxW",
            help="Resize images to this height and width. [default: their own; "
            "what the model takes, where they vary]",
        ),
        click.option(
            "--cache",
            "data_cache",
            type=click.Choice(["memory", "disk"]),
            help="Keep decoded files for the next epoch. [default: read them again]",
        ),
        click.option(
            "--cache-mib",
            "data_cache_mib",
            type=NumberRange(0, 10**9, "low"),
            metavar="MIB",
            help="The largest size of what is cached or taken into memory. [default: 1024]",
        ),
        click.option(
            "--unreadable",
            "data_unreadable",
            type=click.Choice(["fail", "skip"]),
            help="What happens with files that cannot be read. [default: fail]",
        ),
        decorate,
    )


def _task(ctx: click.Context, param: click.Parameter, value: str | None) -> TaskSpec | None:
    if value is None or ctx.resilient_parsing:
        return None
    from tfprune.tasks import TaskSpec

    return TaskSpec.read(value)


task = click.option(
    "--task",
    callback=_task,
    metavar="KIND|FILE.toml",
    help="What the model is trained for: classification, binary, multi-label, segmentation, "
    "regression, or a TOML file with the keys of a pipeline's [task]. [default: as the model is "
    "compiled, else a classification]",
)


def devices(why: str) -> Decorator:
    """`--device` and its options; the command gets a list of `Device` as `devices`.

    What a device needs is checked before the command begins.

    Args:
        why: what the command does with them, for the help.
    """
    from tfprune.vocabulary import DEVICES, explained

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_devices(
            *args: Any, device_names: tuple[str, ...], device_options: dict[str, Any], **given: Any
        ) -> Any:
            return command(*args, devices=_devices(device_names, device_options), **given)

        return with_devices

    return stacked(
        click.option(
            "--device",
            "device_names",
            multiple=True,
            metavar="NAME",
            help=f"{why[:1].upper()}{why[1:]}: {explained(DEVICES)}; repeatable.",
        ),
        device_option,
        decorate,
    )


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device-option`; the command gets a dict as `device_options`."""
    return click.option(
        "--device-option",
        "device_options",
        multiple=True,
        callback=_texts_or_assignments,
        metavar="KEY=VALUE",
        help="An option of those devices that take it, such as threads=4; repeatable.",
    )(command)


def _devices(names: Iterable[str], options: dict[str, Any]) -> list[Device]:
    """The devices of a command line, each with those options that its kind has."""
    from tfprune.devices import find_device
    from tfprune.devices.registry import find_kind
    from tfprune.errors import UsageError, did_you_mean

    found, unused = [], dict(options)
    kinds = {name: find_kind(name) for name in dict.fromkeys(names)}
    for name, kind in kinds.items():
        fitting = {key: value for key, value in options.items() if key in kind.options()}
        for key in fitting:
            unused.pop(key, None)
        found.append(find_device(name, **fitting))
    if unused:
        if not kinds:
            raise click.UsageError("--device-option is for a device: give --device")
        known = dict.fromkeys(key for kind in kinds.values() for key in kind.options())
        key = next(iter(unused))
        raise UsageError(
            f"--device-option {key} is unknown to {', '.join(kinds)}: {did_you_mean(key, known)}"
        )
    for device in found:
        device.check()
    return found


def execution(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--executor` and its options, and `--store`.

    The command gets an `Execution` as `execution`, and the address of the store as `store`.
    """
    from tfprune.vocabulary import EXECUTORS, explained

    @functools.wraps(command)
    def with_execution(
        *args: Any,
        executor: str,
        workers: int | None,
        gpus_per_task: int,
        address: str | None,
        **given: Any,
    ) -> Any:
        from tfprune.pipeline.executors import Execution

        where = Execution(executor, workers, gpus_per_task, address)
        return command(*args, execution=where, **given)

    return stacked(
        click.option(
            "--executor",
            type=click.Choice(list(EXECUTORS)),
            default="local",
            show_default=True,
            help=f"Where tasks are done: {explained(EXECUTORS)}. Files are timed here, at the end.",
        ),
        click.option(
            "--workers",
            type=COUNT,
            metavar="N",
            help="Tasks at the same time. [default: one a GPU with --gpus-per-task, else one a "
            "CPU]",
        ),
        click.option(
            "--gpus-per-task",
            type=click.IntRange(0, 1024),
            default=0,
            metavar="N",
            help="GPUs that each task has for itself. [default: what is visible, shared]",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="Of the Ray cluster, such as auto. [default: start Ray on this machine]",
        ),
        click.option(
            "--store",
            metavar="ADDRESS",
            help="Where finished tasks are taken from and put, beside the folder of the run: a "
            "folder, or an address of fsspec, such as s3://bucket/runs. Needs the extra cluster.",
        ),
    )(with_execution)


_DATA_FIELDS = ("options", "image_size", "cache", "cache_mib", "unreadable")


def _data_spec(name: str | None, data_dir: str | None, asked: dict[str, Any]) -> DataSpec | None:
    from tfprune.pipeline.inputs import check_data
    from tfprune.pipeline.spec import DataSpec

    given = {field: value for field, value in asked.items() if value not in (None, {})}
    if name is None:
        if given:
            flag = min(given).replace("options", "data-option").replace("_", "-")
            raise click.UsageError(f"--{flag} is for data: give --data")
        return None
    spec = DataSpec(name=name, **given)
    check_data(spec, data_dir)
    return spec


def seed_list(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    """Reads `0,1,2`."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 0,1,2") from None


def assignments(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Reads `width=16`, each as it would stand in a pipeline file."""
    return _merged(map(_assignment, values))


def _texts_or_assignments(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Reads `threads=4`, and a text without the quotes of TOML: `command=ssh pi ./bench {file}`."""
    return _merged(map(_text_or_assignment, values))


def _merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        for key in part:
            if key in found:
                raise click.BadParameter(f"{key} is given twice")
        found |= part
    return found


def _assignment(value: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(value)
    # Brackets in brackets, thousands deep, end in the latter.
    except (tomllib.TOMLDecodeError, RecursionError):
        raise click.BadParameter(
            f"{value[:60]!r} is not of the form width=16, blocks=[1, 2] or weights='random'"
        ) from None


def _text_or_assignment(value: str) -> dict[str, Any]:
    try:
        return _assignment(value)
    except click.BadParameter:
        key, equals, text = (part.strip() for part in value.partition("="))
        # What begins like TOML was meant as such.
        if not equals or not key.isidentifier() or text[:1] in tuple("'\"[{"):
            raise
        return {key: text}


def _input_shape(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """Reads `224x224x3`, or `photo=224x224x3` once for each of several inputs."""
    found: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, text = value.rpartition("=")
        sizes = text.lower().split("x")
        if not all(size.isdecimal() and 0 < int(size) <= _MOST for size in sizes):
            raise click.BadParameter(
                f"{value[:60]!r} is not a shape such as 224x224x3, or NAME=224x224x3"
            )
        if name in found or (found and "" in (name, *found)):
            raise click.BadParameter(f"{value[:60]!r} comes twice: name each input once")
        found[name] = tuple(int(size) for size in sizes)
    return found.get("", found or None)


_input_shape_option = click.option(
    "--input-shape",
    multiple=True,
    callback=_input_shape,
    metavar="[NAME=]224x224x3",
    help="The shape of one example, where the model leaves sizes open or a function asks for it; "
    "for several inputs NAME=SHAPE, repeatable.",
)


def model(command: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL with `--option` and `--input-shape`; the command gets a `ModelSpec` as `model`.

    What can be seen without loading the model is checked before the command begins.
    """

    @functools.wraps(command)
    def with_model(
        *args: Any,
        model_name: str,
        option: dict[str, Any],
        input_shape: tuple[int, ...] | dict[str, tuple[int, ...]] | None,
        **given: Any,
    ) -> Any:
        return command(*args, model=_model_spec(model_name, option, input_shape), **given)

    return stacked(
        click.argument("model_name", metavar="MODEL"), model_option, _input_shape_option
    )(with_model)


def _model_spec(
    name: str,
    option: dict[str, Any],
    input_shape: tuple[int, ...] | dict[str, tuple[int, ...]] | None,
) -> ModelSpec:
    from tfprune.model.reference import find_model
    from tfprune.pipeline.spec import ModelSpec

    reference = find_model(name, option)
    reference.check_files()
    # It is checked, and a file may have a name that is not text.
    return ModelSpec.model_construct(name=reference.name, options=option, input_shape=input_shape)


def stacked(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in their order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(decorators):
            function = each(function)
        return function

    return decorate


model_option = click.option(
    "--option",
    multiple=True,
    callback=assignments,
    metavar="KEY=VALUE",
    help="An option of a net by name, or an argument of the function of FILE.py:FUNCTION; "
    "repeatable.",
)


def tell(dataset: Dataset | None) -> None:
    """Says on stderr what the data are: how they are split, resized, and what is left out."""
    if dataset is not None:
        click.echo(dataset.note, err=True)


def print_missing(runs: Iterable[Run]) -> None:
    """Names on stderr what runs plan and do not have.

    Args:
        runs: what `read_run` read.
    """
    for run in runs:
        for line in run.notes():
            click.echo(f"missing: {line}", err=True)
