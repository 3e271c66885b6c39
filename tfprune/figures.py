"""The figures that are measured: one row each, read by every table, plot, budget and tracker.

A new figure is a row of `FIGURES` and a value under its `key` in the record that its `source`
names. Nothing else has to know it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Source = Literal[
    "artifact", "file", "variant", "latency", "training", "history", "measure", "channels"
]
Direction = Literal["higher", "lower"]

# How many decimals may be added to tell two figures apart.
_EXTRA_DIGITS = 6


@dataclass(frozen=True)
class Number:
    """How a number is written.

    Attributes:
        unit: what stands behind it, with the space before it; "%" shows a share of 0 to 1.
        digits: decimals; None for up to six significant digits.
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
        mean, spread = self.text(value, digits), self.text(deviation, digits)
        if spread == self.text(0.0, digits) and not always:
            return mean
        return f"{mean.removesuffix(self.unit) if ' ' in self.unit else mean} ± {spread}"

    def difference(self, value: float, digits: int | None = None) -> str:
        """A difference of two such numbers: that of two percentages is in points."""
        return self._scaled(value, digits) + (" points" if self.unit == "%" else self.unit)

    def digits_apart(self, one: float, other: float) -> int:
        """Enough decimals to tell two numbers apart that are not equal."""
        usual = self.digits or 0
        for digits in range(usual, usual + _EXTRA_DIGITS):
            if one == other or self.text(one, digits) != self.text(other, digits):
                return digits
        return usual + _EXTRA_DIGITS

    def digits_of(self, value: float) -> int:
        """Enough decimals for all that a person wrote; the usual ones if that takes too many."""
        usual = self.digits or 0
        scaled = 100 * value if self.unit == "%" else value / self.per
        for digits in range(usual, usual + 4):
            if abs(round(scaled, digits) - scaled) <= 1e-9 * abs(scaled):
                return digits
        return usual

    def _scaled(self, value: float, digits: int | None) -> str:
        places = self.digits if digits is None else digits
        if places is None:
            return f"{value / self.per:g}"
        if self.unit == "%":
            return f"{value:{self.flags}.{places}%}".removesuffix("%")
        return f"{value / self.per:{self.flags}.{places}f}"


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
            a lottery; `tfprune measure` ("measure"); the groups of "channels" of a model.
        meaning: what it is, in one plain phrase.
        better: which way is better; None for a figure that is not judged.
        key: its key in the record of its source, where that is not `name`.
        heading: a shorter title for the columns of tables.
        phrase: what it is called within a sentence and on an axis, where `title` is too short.
        page_heading: the heading in the HTML page, where that is not the heading of other tables.
        axis: the unit as the axis of a plot has it, where that is not the unit itself.
        exact: how a budget writes it, where the rounding of the tables would hide a difference.
        of: the figure that it is a share of, or a difference to, against a baseline.
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
            deviation: shown where it is given, not NaN, and not rounded to nothing. That of an
                accuracy is always shown, because no deviation is a finding there.
        """
        if math.isnan(value):
            return ""
        if deviation is None or math.isnan(deviation):
            return self.number.text(value)
        return self.number.mean(value, deviation, always=self.name == ACCURACY)


_KIB = Number(" KiB", 1, 1024)
_SHARE = Number("%", 1)

ACCURACY = "accuracy"
"""The figure that variants are compared by. Its deviation is shown even where it is 0."""

COSTS = ("bytes_gzip", "macs", "latency_ms")
"""What the accuracy is weighed against: a plot, a ratio and a part of the result each."""

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
        ACCURACY,
        "accuracy",
        Number("%", 2),
        "artifact",
        "share of the test images that the artifact itself gets right",
        "higher",
    ),
    Figure(
        "loss",
        "loss",
        Number("", 3, flags=""),
        "artifact",
        "cross-entropy on the test set, nats",
        "lower",
        exact=Number(" nats", 3),
    ),
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
        "median time of one image, milliseconds",
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
    Figure(
        "early_stop_val_accuracy",
        "val. accuracy then",
        Number("%", 2),
        "history",
        "validation accuracy after the early-stop epoch",
        "higher",
    ),
    Figure(
        "val_accuracy",
        "val. accuracy",
        Number("%", 2),
        "history",
        "validation accuracy at the end of training",
        "higher",
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
        "peak memory of a process that loads the file and runs one image",
        "lower",
    ),
    *BASELINE_RATIOS,
    Figure(
        "accuracy_points",
        "points",
        Number("", 2, flags="+"),
        "measure",
        "percentage points above the baseline",
        of=ACCURACY,
    ),
    Figure("macs_share", "MACs", _SHARE, "channels", "share of the model's", of="macs"),
    Figure("params_share", "params", _SHARE, "channels", "share of the model's", of="parameters"),
)


def figure(name: str) -> Figure:
    """The row of a name.

    Example:
        >>> figure("macs").title
        'MACs'

    Raises:
        KeyError: there is none.
    """
    return by_name()[name]


def by_name() -> dict[str, Figure]:
    """All figures, by their names."""
    return {each.name: each for each in FIGURES}


def compared() -> tuple[Figure, ...]:
    """The figures of a run's comparison, in the order of its columns."""
    sources = ("artifact", "file", "variant", "latency", "training")
    return tuple(each for each in FIGURES if each.source in sources)


def judged() -> tuple[Figure, ...]:
    """The figures that a budget can limit: those of a run of which one way is better."""
    return tuple(each for each in compared() if each.better is not None)
