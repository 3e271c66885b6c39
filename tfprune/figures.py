"""The figures that are measured: one row each, read by every table, plot, budget and tracker.

A new figure is a row of `FIGURES` and a value under its `key` in the record that its `source`
names. Nothing else has to know it. The one figure that a run is compared by is that of its task:
`compared`, `judged` and `by_name` take it, `to_record` and `from_record` keep it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Source = Literal[
    "artifact",
    "file",
    "variant",
    "latency",
    "training",
    "history",
    "measure",
    "channels",
    "device",
]
Direction = Literal["higher", "lower"]

# How many decimals may be added to tell two figures apart.
_EXTRA_DIGITS = 6
# Of numbers whose size is not known beforehand.
_SIGNIFICANT = 4
_MOST_DIGITS = 12
# From here on a plain number is longer than one with an exponent.
_TINY, _HUGE = 1e-7, 1e15


@dataclass(frozen=True)
class Number:
    """How a number is written.

    Attributes:
        unit: what stands behind it, with the space before it; "%" shows a share of 0 to 1.
        digits: decimals; None for four digits that are significant, whatever the size.
        per: how much of the figure makes one of the unit.
        flags: of Python's format specification: "," groups thousands, "+" shows the sign.
    """

    unit: str = ""
    digits: int | None = 0
    per: float = 1
    flags: str = ","

    def text(self, value: float, digits: int | None = None) -> str:
        """The number with its unit.

        Example:
            >>> Number(" KiB", 1, 1024).text(2048)
            '2.0 KiB'

        Args:
            value: in the unit of the tables: shares 0 to 1, bytes, milliseconds.
            digits: decimals, where others than the usual ones are wanted.
        """
        return self._scaled(value, digits) + self.unit

    def mean(
        self, value: float, deviation: float, digits: int | None = None, *, always: bool = False
    ) -> str:
        """A mean with its deviation, such as "12.3 ± 0.4 KiB" or "92.00% ± 2.00%".

        Args:
            value: the mean.
            deviation: left out where it is rounded to nothing.
            digits: as for `text`.
            always: whether a deviation of nothing is shown too.
        """
        digits = self.places(value or deviation) if digits is None else digits
        mean, spread = self.text(value, digits), self.text(deviation, digits)
        if spread == self.text(0.0, digits) and not always:
            return mean
        return f"{mean.removesuffix(self.unit) if ' ' in self.unit else mean} ± {spread}"

    def difference(self, value: float, digits: int | None = None) -> str:
        """A difference of two such numbers: that of two percentages is in points."""
        return self._scaled(value, digits) + (" points" if self.is_share else self.unit)

    def digits_apart(self, one: float, other: float) -> int | None:
        """Enough decimals to tell two numbers apart that are not equal; None: the usual ones."""
        if one == other or self.text(one) != self.text(other):
            return self.digits
        usual = self.places(max(one, other, key=abs))
        if usual is None:
            return None
        for digits in range(usual, usual + _EXTRA_DIGITS):
            if self.text(one, digits) != self.text(other, digits):
                return digits
        return usual + _EXTRA_DIGITS

    def digits_of(self, value: float) -> int | None:
        """Enough decimals for all that a person wrote; the usual ones if that takes too many."""
        usual = self.digits or 0
        scaled = self._in_units(value)
        for digits in range(usual, _MOST_DIGITS if self.digits is None else usual + 4):
            if abs(round(scaled, digits) - scaled) <= 1e-9 * abs(scaled):
                return digits
        return self.digits

    @property
    def is_share(self) -> bool:
        """Whether it is a share of 0 to 1, shown in per cent."""
        return self.unit == "%"

    def _in_units(self, value: float) -> float:
        return 100 * value if self.is_share else value / self.per

    def places(self, value: float) -> int | None:
        """Decimals that a value is written with; None where it takes an exponent.

        Example:
            >>> Number(" mm", None).places(43.1234)
            2
            >>> Number(" M", 2, 1e6).places(2600)  # Not 0.00 M.
            4

        A difference and a deviation are written with as many as the figure itself.
        """
        size = abs(self._in_units(value))
        if self.digits is not None:
            # A count that is small in its unit is not nothing.
            small = self.per > 1 and 0 < size < 0.5 * 10**-self.digits
            return 1 - math.floor(math.log10(size)) if small else self.digits
        if size == 0:
            return 0
        if not _TINY <= size < _HUGE:
            return None
        return max(0, _SIGNIFICANT - 1 - math.floor(math.log10(size)))

    def _scaled(self, value: float, digits: int | None) -> str:
        places = self.places(value) if digits is None else digits
        scaled = self._in_units(value)
        if places is None:
            return f"{scaled:{self.flags}.{_SIGNIFICANT}g}"
        text = f"{scaled:{self.flags}.{places}f}"
        if self.digits is None and digits is None and "." in text:
            text = text.rstrip("0").rstrip(".")
        return text


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: its column in tables, and its key in JSON, in budgets and in MLflow.
        title: what messages, budgets and the headings of tables call it.
        number: how it is written.
        source: where it is read from. In the comparison of a run: the record of the "artifact";
            the same record, where it repeats what the "file" itself shows; the record of the
            "variant", whose artifacts share it; the "latency" record of the seed; the "training"
            of the whole chain of steps. Elsewhere: the "history" of a training, for the levels of
            a lottery; `tfprune measure` ("measure"); the groups of "channels" of a model; what a
        "device" tells.
        meaning: what it is, in one plain phrase.
        better: which way is better; None for a figure that is not judged.
        key: its key in the record of its source, where that is not `name`.
        heading: a shorter title for the columns of tables.
        phrase: what it is called within a sentence and on an axis, where `title` is too short.
        page_heading: the heading in the HTML page, where that is not the heading of other tables.
        axis: the unit as the axis of a plot has it, where that is not the unit itself.
        exact: how a budget writes it, where the rounding of the tables would hide a difference.
        of: the figure that it is a share of, or a difference to, against a baseline.
        always_spread: whether its deviation over seeds is shown even where it is 0, because no
            deviation is a finding there: so it is with what a run is compared by.
        proportion: whether it is the share of the examples that are right, each right or wrong:
            then the number of examples tells how sure it is.
        loss_unit: of the loss beside it; "nats" for a cross-entropy.
    """

    name: str
    title: str
    number: Number
    source: Source
    meaning: str
    better: Direction | None = None
    key: str = ""
    heading: str = ""
    phrase: str = ""
    page_heading: str = ""
    axis: str = ""
    exact: Number | None = None
    of: str = ""
    always_spread: bool = False
    proportion: bool = False
    loss_unit: str = ""

    @property
    def record_key(self) -> str:
        """Its key in the record of its source."""
        return self.key or self.name

    @property
    def column_heading(self) -> str:
        """The heading of its column in a table of text."""
        return self.heading or self.title

    @property
    def noun(self) -> str:
        """What a sentence calls it."""
        return self.phrase or self.title

    @property
    def axis_unit(self) -> str:
        """The unit on the axis of a plot."""
        return self.axis or self.number.unit.strip()

    @property
    def axis_title(self) -> str:
        """What stands at the axis of a plot whose ticks are those of `tick`."""
        unit = "" if self.is_share else self.axis_unit
        return f"{self.noun}, {unit}" if unit else self.noun

    def tick(self, value: float, digits: int = 0) -> str:
        """A value on the axis of a plot, without its unit; shares with their per cent.

        Args:
            value: in the unit of the tables.
            digits: decimals of a share.
        """
        if self.is_share:
            return f"{value:.{digits}%}"
        # Float noise such as 0.30000000000000004 is not shown.
        return f"{value:,.10g}" if abs(value) < 1e6 else f"{value:g}"

    @property
    def exact_number(self) -> Number:
        """How a budget writes it: thousands grouped, since no column aligns them there."""
        number = self.exact or self.number
        return Number(number.unit, number.digits, number.per)

    def text(self, value: float, deviation: float | None = None) -> str:
        """The figure as tables show it; the empty text for NaN.

        Example:
            >>> figure("bytes").text(12_595, 410)
            '12.3 ± 0.4 KiB'

        Args:
            value: the figure, or its mean.
            deviation: shown where it is given, not NaN, and not rounded to nothing; that of a
                figure of a task (`always_spread`) even then.
        """
        if math.isnan(value):
            return ""
        if deviation is None or math.isnan(deviation):
            return self.number.text(value)
        return self.number.mean(value, deviation, always=self.always_spread)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of 0 to 1; differences are in points then."""
        return self.number.is_share

    @property
    def sentence(self) -> str:
        """What it is called at the begin of a sentence."""
        return f"{self.noun[:1].upper()}{self.noun[1:]}"

    @property
    def description(self) -> str:
        """Its title, unit and direction: "MAE in mm, lower is better"."""
        unit = self.number.unit.strip()
        named = f"{self.title} in {unit}" if unit else self.title
        return f"{named}, {self.better} is better" if self.better else named

    def gain(self, value: Any) -> Any:
        """The figure so that more is better: negative where lower is better.

        Args:
            value: a number, or an array or a column of them.
        """
        return -value if self.better == "lower" else value

    def change(self, value: float, base: float) -> float:
        """How far a value lies above another: of shares in percentage points."""
        return 100 * (value - base) if self.is_share else value - base

    def drop(self, value: float, base: float) -> float:
        """How much worse a value is than another one: of shares in percentage points."""
        return self.change(self.gain(base), self.gain(value))

    def is_same(self, other: Figure) -> bool:
        """Whether values of both can stand in one column: same name, unit and direction."""
        return (self.name, self.number.unit, self.better) == (
            other.name,
            other.number.unit,
            other.better,
        )


_KIB = Number(" KiB", 1, 1024)
_SHARE = Number("%", 1)

ACCURACY = Figure(
    "accuracy",
    "accuracy",
    Number("%", 2),
    "artifact",
    "share of the test examples that the artifact itself gets right",
    "higher",
    always_spread=True,
    proportion=True,
    loss_unit="nats",
)
"""What classification is compared by, and every run whose records name no figure."""

COSTS = ("bytes_gzip", "macs", "latency_ms")
"""What the compared figure is weighed against: a plot, a ratio and a part of the result each."""

BASELINE_RATIOS = tuple(
    Figure(name, title, _SHARE, "measure", "share of the baseline's", of=of)
    for name, title, of in (
        ("bytes_ratio", "size left", "bytes"),
        ("gzip_ratio", "gzip left", "bytes_gzip"),
        ("macs_ratio", "MACs left", "macs"),
        ("latency_ratio", "time left", "latency_ms"),
    )
)
"""The figures of `tfprune measure --baseline` that are shares of the baseline's."""

FIGURES = (
    Figure(
        "parameters",
        "parameters",
        Number(),
        "artifact",
        "parameters in the artifact",
        "lower",
        heading="params",
    ),
    Figure(
        "nonzero",
        "non-zero parameters",
        Number(),
        "artifact",
        "parameters that are not zero",
        "lower",
        key="nonzero_parameters",
        heading="non-zero",
    ),
    Figure(
        "sparsity",
        "sparsity",
        Number("%", 1),
        "artifact",
        "share of parameters that are zero",
        "higher",
        page_heading="zeros",
        exact=Number("%", 2),
    ),
    Figure(
        "macs",
        "MACs",
        Number(" M", 2, 1e6, ""),
        "variant",
        "multiply-accumulates of one example",
        "lower",
        axis="million",
        exact=Number(),
    ),
    Figure("bytes", "size", _KIB, "file", "size of the file", "lower", key="bytes_raw"),
    Figure(
        "bytes_gzip",
        "gzip",
        _KIB,
        "file",
        "size of the file in gzip",
        "lower",
        phrase="compressed size",
        page_heading="compressed",
    ),
    Figure(
        "latency_ms",
        "latency",
        Number(" ms", 3, flags=""),
        "latency",
        "median time of one example, milliseconds; of a file with a larger batch its share",
        "lower",
        key="median_ms",
    ),
    # What making and testing took tells of the machine and the plan: no budget judges it.
    Figure("epochs", "epochs", Number(flags=""), "training", "epochs of the whole chain of steps"),
    Figure(
        "epoch_seconds",
        "s/epoch",
        Number("", 1, flags=""),
        "training",
        "mean seconds of an epoch, over the whole chain of steps",
    ),
    Figure(
        "test_seconds",
        "test s",
        Number("", 2, flags=""),
        "artifact",
        "seconds for the whole test set",
    ),
    Figure(
        "early_stop_epoch",
        "early-stop epoch",
        Number(digits=None),
        "history",
        "the epoch with the lowest validation loss in the last training: the sooner, the faster "
        "it learns",
        "lower",
    ),
    Figure("bytes_zstd", "zstd", _KIB, "measure", "size of the file after `zstd -19`", "lower"),
    Figure(
        "floor_mask_bytes",
        "mask floor",
        _KIB,
        "measure",
        "size of an ideal code of where the zeros are, and of every other weight as it is",
        "lower",
    ),
    Figure(
        "floor_entropy_bytes",
        "entropy floor",
        _KIB,
        "measure",
        "the same with the entropy of the bytes of the other weights",
        "lower",
    ),
    Figure(
        "zstd_to_mask",
        "zstd/mask",
        Number("x", 2, flags=""),
        "measure",
        "size after zstd divided by the mask floor",
        "lower",
    ),
    Figure(
        "zstd_to_entropy",
        "zstd/entropy",
        Number("x", 2, flags=""),
        "measure",
        "size after zstd divided by the entropy floor",
        "lower",
    ),
    Figure(
        "latency_p10_ms",
        "p10",
        Number("", 3, flags=""),
        "measure",
        "tenth percentile of the latency, milliseconds",
        "lower",
    ),
    Figure(
        "latency_p90_ms",
        "p90",
        Number("", 3, flags=""),
        "measure",
        "ninetieth percentile of the latency, milliseconds",
        "lower",
    ),
    Figure(
        "memory_bytes",
        "memory",
        Number(" MiB", 1, 2**20, ""),
        "measure",
        "peak memory of a process that loads the file and runs one example",
        "lower",
    ),
    *BASELINE_RATIOS,
    Figure(
        "device_ms",
        "time",
        Number(" ms", 3, flags=""),
        "device",
        "time of one example on the device, milliseconds; a median where it is timed",
        "lower",
    ),
    Figure("cycles", "cycles", Number(), "device", "clock cycles of one example", "lower"),
    Figure(
        "sram_bytes",
        "SRAM",
        _KIB,
        "device",
        "on-chip memory for activations, at its peak",
        "lower",
    ),
    Figure(
        "flash_bytes",
        "flash",
        _KIB,
        "device",
        "storage that the model takes on the device, as the device stores it",
        "lower",
    ),
    Figure(
        "arena_bytes",
        "arena",
        _KIB,
        "device",
        "memory that TFLite Micro takes to run the model",
        "lower",
    ),
    Figure(
        "npu_share",
        "on the NPU",
        _SHARE,
        "device",
        "share of the file's operators that the NPU runs itself",
        "higher",
    ),
    Figure("macs_share", "MACs", _SHARE, "channels", "share of the model's", of="macs"),
    Figure("params_share", "params", _SHARE, "channels", "share of the model's", of="parameters"),
)


# What devices tell, too.
_SHARED = ("memory_bytes",)

# Of a name: it is a key of records, a column of tables and a metric of MLflow.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
# What else stands in a row of a table, in the record of an artifact, or in a history.
_TAKEN = (
    {"run", "variant", "seed", "seeds", "artifact", "method", "level", "density", "epoch", "at"}
    | {"format", "path", "sha256", "test_images", "test_examples", "agreement", "metrics"}
    | {"layers", "channels", "kept", "keep", "threads", "delegate", "per_class", "class_images"}
    | {"batch"}
)


def check_name(name: str) -> None:
    """Checks that a task's figure can have a name.

    Example:
        >>> check_name("mean_iou")

    Raises:
        ValueError: it is not a plain name, or that of something else in a table or a record.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name of a figure: begin with a letter, and use A-Z, a-z, 0-9, "
            "dots, hyphens and underscores"
        )
    taken = {each for row in FIGURES for each in (row.name, row.record_key)} | _TAKEN
    if name in taken:
        raise ValueError(f"{name!r} is the name of something else that is measured: rename it")


def to_record(figure: Figure) -> dict[str, Any]:
    """The compared figure of a task, as a run's records keep it.

    Example:
        >>> to_record(figure("accuracy"))["better"]
        'higher'

    Returns:
        name, title, unit (without a space before it), digits, better and meaning; `proportion`
        and `loss_unit` where they are not empty.

    Raises:
        ValueError: it has no direction, no plain name, or a scale of its own.
    """
    check_name(figure.name)
    if figure.better is None or figure.number.per != 1:
        raise ValueError(f"{figure.name} has no direction, or a scale of its own: give it neither")
    record: dict[str, Any] = {
        "name": figure.name,
        "title": figure.title,
        "unit": figure.number.unit.strip(),
        "digits": figure.number.digits,
        "better": figure.better,
        "meaning": figure.meaning,
    }
    own = {"proportion": figure.proportion, "loss_unit": figure.loss_unit}
    return record | {key: value for key, value in own.items() if value}


def from_record(record: Mapping[str, Any] | None) -> Figure:
    """The compared figure that a record names: that of `to_record`.

    Example:
        >>> from_record(None).name
        'accuracy'
        >>> from_record({"name": "mae", "unit": "mm", "better": "lower"}).text(1.25)
        '1.25 mm'

    Args:
        record: `name` and `better` at least; None in runs that were made before tasks were.

    Raises:
        ValueError: its name cannot be that of a figure.
    """
    if record is None:
        return ACCURACY
    name, unit = str(record["name"]), _plain(record.get("unit"))
    check_name(name)
    return Figure(
        name,
        _plain(record.get("title")) or name,
        Number(unit if unit in ("", "%") else f" {unit}", record.get("digits")),
        "artifact",
        _plain(record.get("meaning")) or "on the test examples",
        record["better"],
        always_spread=True,
        proportion=bool(record.get("proportion", False)),
        loss_unit=_plain(record.get("loss_unit")),
    )


def _plain(text: Any) -> str:
    """A text of a record on one line, without what a terminal takes for a command."""
    letters = (letter if letter.isprintable() else " " for letter in str(text or ""))
    return " ".join("".join(letters).split())


def loss(by: Figure = ACCURACY) -> Figure:
    """The loss beside a compared figure; that figure itself where it is the loss."""
    if by.name == "loss":
        return by
    unit = by.loss_unit
    if unit == "nats":
        meaning, exact = "cross-entropy on the test set, nats", Number(" nats", 3)
        return Figure(
            "loss", "loss", Number("", 3, flags=""), "artifact", meaning, "lower", exact=exact
        )
    number = Number(f" {unit}" if unit else "", None)
    return Figure(
        "loss", "loss", number, "artifact", "what is trained for, on the test set", "lower"
    )


def learned(by: Figure = ACCURACY) -> tuple[Figure, ...]:
    """The figures of a training's history, for a compared figure."""
    title, number, better = by.title, by.number, by.better
    return (
        figure("early_stop_epoch", by),
        Figure(
            f"early_stop_val_{by.name}",
            f"val. {title} then",
            number,
            "history",
            f"validation {by.noun} after the early-stop epoch",
            better,
        ),
        Figure(
            f"val_{by.name}",
            f"val. {title}",
            number,
            "history",
            f"validation {by.noun} of the weights that the training left",
            better,
        ),
    )


def change(by: Figure = ACCURACY) -> Figure:
    """The difference of a compared figure to a baseline's: `NAME_points`, or `NAME_difference`."""
    if by.is_share:
        return Figure(
            f"{by.name}_points",
            "points",
            Number("", 2, flags="+"),
            "measure",
            "percentage points above the baseline",
            of=by.name,
        )
    return Figure(
        f"{by.name}_difference",
        "difference",
        replace(by.number, flags="+"),
        "measure",
        "how far it lies above the baseline",
        of=by.name,
    )


def figure(name: str, by: Figure = ACCURACY) -> Figure:
    """The row of a name.

    Example:
        >>> figure("macs").title
        'MACs'

    Args:
        name: of a figure.
        by: what the run is compared by.

    Raises:
        KeyError: there is none.
    """
    return _fixed()[name] if name in _fixed() else by_name(by)[name]


def _fixed() -> dict[str, Figure]:
    return {each.name: each for each in FIGURES}


def by_name(by: Figure = ACCURACY) -> dict[str, Figure]:
    """All figures of a run that is compared by one, by their names."""
    rows = (by, loss(by), *FIGURES, *learned(by), change(by))
    return {each.name: each for each in rows}


def compared(by: Figure = ACCURACY) -> tuple[Figure, ...]:
    """The figures of a run's comparison, in the order of its columns.

    Example:
        >>> [row.name for row in compared()][:3]
        ['accuracy', 'loss', 'parameters']

    Args:
        by: what the run is compared by; it comes first.
    """
    sources = ("artifact", "file", "variant", "latency", "training")
    rows = dict.fromkeys((by, loss(by), *FIGURES))
    return tuple(each for each in rows if each.source in sources)


def on_devices() -> tuple[Figure, ...]:
    """The figures that devices tell, and a budget can limit where it names a device."""
    return tuple(each for each in FIGURES if each.source == "device" or each.name in _SHARED)


def judged(by: Figure = ACCURACY) -> tuple[Figure, ...]:
    """The figures that a budget can limit: those of a run of which one way is better.

    Args:
        by: what the run is compared by.
    """
    return tuple(each for each in compared(by) if each.better is not None)
