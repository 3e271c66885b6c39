"""What a search may say: `search.toml`, or the options of `tfprune search`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

from tfprune import figures
from tfprune.devices.measuring import find_figure
from tfprune.errors import UsageError, check_package, did_you_mean
from tfprune.figures import Figure
from tfprune.formats import check_installed
from tfprune.pipeline.spec import DataSpec, DeviceSpec, ModelSpec, Name, SharedTraining
from tfprune.pipeline.steps import Table, distinct
from tfprune.tasks import TaskSpec
from tfprune.validation import describe_error, read_toml
from tfprune.vocabulary import FormatName, ImportanceName, MeasuredFormat

Sampler: TypeAlias = Literal["tpe", "nsga2", "random"]
SpaceTarget: TypeAlias = Literal["macs", "params", "cycles", "latency", "sram", "flash"]
Structure: TypeAlias = Literal["planned", "learnt"]

_ALIASES = {"latency": "device_ms", "time": "device_ms", "gzip": "bytes_gzip", "size": "bytes"}
# What zeros and few values make smaller; on other costs they have no effect.
_COMPRESSED = ("bytes_gzip", "nonzero")
# The formats that are tried, as far as the device runs them.
_TRIED: tuple[FormatName, ...] = ("tflite", "tflite-float16", "tflite-dynamic", "tflite-int8")
_FEWEST_EPOCHS = 1

Keep = Annotated[float, Field(gt=0, le=1)]
Zeros = Annotated[float, Field(ge=0, lt=1)]


def _some_distinct(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if values is None:
        return None
    if not values:
        raise ValueError("is empty: give at least one")
    return distinct(values)


class Space(Table):
    """What is tried; what is not given follows from the device and the cost.

    Attributes:
        keep: the least and the most of a model that stays.
        keep_step: the grid of `keep`; what is alike is done once.
        targets: what `keep` is a share of: macs or params; cycles, latency, sram or flash, as the
            device's compiler estimates them; for cpu latency, measured on this computer.
        importances: how filters are ranked.
        structures: whether filters are removed by a plan and then the model is trained, or become
            zero in the first part of this training (`tfprune.LearnStructure`); the former where
            weights become zero too.
        round_to: multiples that layers shrink to.
        zeros: shares of the weights that become zero; 0 for none.
        bits: of the weights of each output channel, before they are exported; 0 for all values.
        formats: that a file is written in.
    """

    keep: tuple[Keep, Keep] = (0.15, 1.0)
    keep_step: Annotated[float, Field(gt=0, lt=1)] = 0.05
    targets: Annotated[tuple[SpaceTarget, ...], Field(min_length=1), AfterValidator(distinct)] = (
        "macs",
        "params",
    )
    importances: Annotated[
        tuple[ImportanceName, ...], Field(min_length=1), AfterValidator(distinct)
    ] = ("l2", "taylor")
    structures: Annotated[tuple[Structure, ...], Field(min_length=1), AfterValidator(distinct)] = (
        "planned",
    )
    round_to: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...] | None, AfterValidator(_some_distinct)
    ] = None
    zeros: Annotated[tuple[Zeros, ...] | None, AfterValidator(_some_distinct)] = None
    bits: Annotated[
        tuple[Literal[0, 2, 3, 4, 5, 6, 7, 8], ...] | None, AfterValidator(_some_distinct)
    ] = None
    formats: Annotated[tuple[FormatName, ...] | None, AfterValidator(_some_distinct)] = None

    @model_validator(mode="after")
    def _ordered(self) -> Space:
        if self.keep[0] > self.keep[1]:
            raise ValueError(f"keep = {list(self.keep)}: write the least first")
        return self


class Search(Table):
    """What is searched, and inside which budget.

    Attributes:
        name: of the run and its folder.
        data: what to train, to judge and to test on.
        model: what to begin with; a net, a function or a trained file.
        task: what it is trained for.
        training: of all steps that train, without epochs.
        epochs: of the dense training; None for a model that is trained already.
        recovery: the most epochs that a trial trains after filters or weights were removed.
        recovery_rate: the learning rate of the recovery, divided by that of the dense training.
        device: where the artifact is meant to run.
        minimize: the cost: latency, macs, bytes, bytes_gzip, or another figure of files or of the
            device.
        max_drop: how much worse than the dense model it may be on validation data: in points where
            the compared figure is a share, else in its own unit.
        max_ratio: the most that it may cost, divided by the dense model's cost; None for any.
        trials: at most so many.
        bracket: trials that begin together; at each rung the better half goes on.
        rungs: how often the half of a bracket is stopped, less one.
        minutes: after which no bracket begins any more; None for no limit.
        seed: of all trainings, and of what is tried.
        sampler: of Optuna.
        space: what is tried.
    """

    name: Name = "search"
    data: DataSpec
    model: ModelSpec
    task: TaskSpec | None = None
    training: SharedTraining = SharedTraining()
    epochs: Annotated[int | None, Field(ge=1, le=100_000)] = None
    recovery: Annotated[int, Field(ge=1, le=100_000)] = 8
    recovery_rate: Annotated[float, Field(gt=0, le=100)] = 0.5
    device: DeviceSpec = DeviceSpec(name="cpu")
    minimize: str = "latency"
    max_drop: Annotated[float, Field(ge=0)] = 0.5
    max_ratio: Annotated[float | None, Field(gt=0)] = None
    trials: Annotated[int, Field(ge=1, le=100_000)] = 24
    bracket: Annotated[int, Field(ge=1, le=1000)] = 8
    rungs: Annotated[int, Field(ge=1, le=10)] = 3
    minutes: Annotated[float | None, Field(gt=0)] = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    sampler: Sampler = "tpe"
    space: Space = Space()

    @model_validator(mode="before")
    @classmethod
    def _device_by_name(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("device"), str):
            return {**raw, "device": {"name": raw["device"]}}
        return raw

    @model_validator(mode="after")
    def _agrees(self) -> Search:
        if self.training.model_dump(exclude_none=True).keys() & {"epochs"}:
            raise ValueError("training.epochs has no meaning: give epochs and recovery")
        if self.epochs is None and not self.model.reference.pretrained:
            raise ValueError(
                f"epochs is missing: {self.model.name} is not trained, so say how many epochs the "
                "dense training has"
            )
        try:
            _ = self.cost
        except UsageError as error:
            raise ValueError(str(error)) from None
        runs = self.device.find().formats
        for form in self.formats:
            if form not in runs:
                raise ValueError(
                    f"space.formats: {self.device.title} does not run {form}: choose from "
                    f"{', '.join(runs)}"
                )
        for target in self.space.targets:
            self._check_target(target)
        return self

    def _check_target(self, target: SpaceTarget) -> None:
        """A target is one that removals can be planned for, or learnt for.

        Raises:
            ValueError: it is not.
        """
        device = self.device.find()
        if target in ("macs", "params") or device.planned:
            return
        if target != "latency" or device.key != "cpu":
            raise ValueError(
                f"space.targets: {self.device.title} cannot be planned for, so {target} has no "
                "meaning: give macs or params"
            )
        foreign = set(self.formats) - set(get_args(MeasuredFormat))
        if foreign:
            raise ValueError(
                f"space.targets: latency is planned for {' and '.join(get_args(MeasuredFormat))}: "
                f"leave {min(foreign)} out of space.formats"
            )
        if "learnt" in self.space.structures:
            raise ValueError(
                "space.structures: no structure is learnt for this computer's latency: leave "
                "latency out of space.targets, or learnt out of space.structures"
            )

    @property
    def cost(self) -> Figure:
        """What is minimized.

        Raises:
            UsageError: no such figure is known, or more of it is better.
        """
        name = _ALIASES.get(self.minimize, self.minimize)
        told = self.device.find().told
        known = (*(row.name for row in counted()), *told)
        if name in known:
            return figures.figure(name)
        # The user's command names its figures when it runs.
        if not told and name.isidentifier():
            return find_figure(name)
        words = [word for word, meant in _ALIASES.items() if meant in known]
        raise UsageError(
            f"minimize = {self.minimize!r} is not a cost that {self.device.title} or its files "
            f"tell: {did_you_mean(self.minimize, (*words, *known))}"
        )

    @property
    def is_measured(self) -> bool:
        """Whether the device has to be asked for the cost."""
        return self.cost.name not in {row.name for row in counted()}

    @property
    def formats(self) -> tuple[FormatName, ...]:
        """The formats that are tried, the dense model's first."""
        if self.space.formats is not None:
            return self.space.formats
        runs = self.device.find().formats
        return tuple(name for name in _TRIED if name in runs) or runs[:1]

    @property
    def zeros(self) -> tuple[float, ...]:
        """The shares of zeros that are tried."""
        if self.space.zeros is not None:
            return self.space.zeros
        return (0.0, 0.5, 0.7, 0.8, 0.9) if self._compresses else (0.0,)

    @property
    def bits(self) -> tuple[int, ...]:
        """The bits that weights are rounded to."""
        if self.space.bits is not None:
            return self.space.bits
        return (0, 4, 5, 6) if self._compresses and self.cost.name != "nonzero" else (0,)

    @property
    def _compresses(self) -> bool:
        """Whether zeros and few values make the cost less."""
        if self.is_measured:
            # Vela writes compressed weights, which an NPU of Arm reads.
            return self.device.find().key.startswith("ethos-u")
        return self.cost.name in _COMPRESSED

    @property
    def round_to(self) -> tuple[int, ...]:
        """The multiples that layers shrink to: runtimes compute channels in tiles."""
        if self.space.round_to is not None:
            return self.space.round_to
        return (8, 1) if self.is_measured else (1,)

    @property
    def segments(self) -> tuple[int, ...]:
        """Epochs of each rung beyond the one before: each rung has twice the epochs in all.

        Example:
            >>> Search(recovery=8, rungs=3, ...).segments
            (2, 2, 4)
        """
        totals = [
            max(_FEWEST_EPOCHS, round(self.recovery / 2**back))
            for back in reversed(range(self.rungs))
        ]
        rising = list(dict.fromkeys(totals))
        return tuple(b - a for a, b in zip([0, *rising], rising, strict=False))

    def check(self) -> None:
        """Checks what is not in the file: the packages of formats, the device and Optuna.

        Raises:
            UsageError: something is missing; the message says how to install it.
        """
        check_package("a search", "optuna", "search")
        check_installed(self.formats)
        self.device.find().check()


def counted() -> tuple[Figure, ...]:
    """The costs that a file and its model show without a device."""
    return tuple(
        row
        for row in figures.FIGURES
        if row.source in ("artifact", "file", "variant") and row.better == "lower"
    )


def load_search(path: str | Path | None = None, **given: Any) -> Search:
    """Reads and checks a search.

    Example:
        ```python
        load_search("search.toml", trials=12)
        load_search(model={"name": "net.keras"}, data={"name": "digits"}, minimize="macs")
        ```

    Args:
        path: a TOML file; None for what is given alone.
        **given: keys of the file that replace its own.

    Raises:
        TfpruneError: the file cannot be read.
        UsageError: it says something that a search cannot; the message names the key.
    """
    raw: Mapping[str, Any] = read_toml(Path(path)) if path is not None else {}
    where = "" if path is None else f"{path}: "
    try:
        return Search.model_validate({**raw, **given})
    except ValidationError as error:
        raise UsageError(where + describe_error(error, Search)) from error
