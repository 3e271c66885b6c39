"""What became of one limit of a budget, and how it is told with its units."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

_EXTRA_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class _Unit:
    """How a figure is written.

    Attributes:
        title: what people call the figure.
        suffix: its unit, with the space before it; empty where the title says it.
        digits: how many decimals are enough where nothing depends on more.
        scale: what a figure is multiplied with.
        difference: the unit of a difference of two of them, where it is another one.
    """

    title: str
    suffix: str
    digits: int = 0
    scale: float = 1
    difference: str | None = None

    def show(self, value: float, digits: int) -> str:
        return f"{value * self.scale:,.{digits}f}{self.suffix}"

    def show_difference(self, value: float, digits: int) -> str:
        suffix = self.suffix if self.difference is None else self.difference
        return f"{value * self.scale:,.{digits}f}{suffix}"

    def apart(self, one: float, other: float) -> int:
        """Enough decimals to tell two figures apart that are not the same."""
        for digits in range(self.digits, self.digits + _EXTRA_DIGITS):
            if one == other or self.show(one, digits) != self.show(other, digits):
                return digits
        return self.digits + _EXTRA_DIGITS

    def exact(self, value: float) -> int:
        """Enough decimals to say all of what a person wrote; the usual ones if there are none."""
        scaled = value * self.scale
        for digits in range(self.digits, self.digits + 4):
            if abs(round(scaled, digits) - scaled) <= 1e-9 * abs(scaled):
                return digits
        return self.digits


_UNITS = {
    "accuracy": _Unit("accuracy", "%", 2, 100, " points"),
    "loss": _Unit("loss", " nats", 3),
    "parameters": _Unit("parameters", ""),
    "nonzero": _Unit("non-zero parameters", ""),
    "sparsity": _Unit("sparsity", "%", 2, 100, " points"),
    "macs": _Unit("MACs", ""),
    "bytes": _Unit("size", " KiB", 1, 1 / 1024),
    "bytes_gzip": _Unit("gzip", " KiB", 1, 1 / 1024),
    "latency_ms": _Unit("latency", " ms", 3),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One limit of one rule, for one artifact of one variant.

    Figures are in the units of `comparison`'s table: shares 0 to 1, bytes, milliseconds.

    Attributes:
        rule: which rule of the budget, counted from 1.
        variant: the variant; the rule's glob where it matches none.
        artifact: the format; the rule's glob where it matches none.
        figure: a column of `comparison`, such as `bytes_gzip`.
        limit: `min`, `max`, `max_drop`, `max_rise`, `min_ratio` or `max_ratio`.
        given: the number that the rule gives for it.
        against: what a relative limit compares with: a variant's name, None for the baseline.
        verdict: whether the limit is kept, broken, or cannot be judged.
        value: the figure; with several seeds their mean, or that of the worst.
        deviation: sample deviation of a mean over several seeds.
        seeds: how many seeds the figure has.
        worst_seed: whose figure it is, where a rule asks for the worst of several.
        reference: the figure that a relative limit compares with.
        bound: what the limit comes to, in the figure's unit.
        margin: how far the figure lies inside the bound; negative where it is broken.
        source: the file of the run that the figure is read from, relative to the run.
        reason: what is missing and what to do; empty unless something is.
    """

    rule: int
    variant: str
    artifact: str
    figure: str
    limit: str
    given: float
    against: str | None
    verdict: Literal["kept", "broken", "missing"]
    value: float | None = None
    deviation: float | None = None
    seeds: int = 0
    worst_seed: int | None = None
    reference: float | None = None
    bound: float | None = None
    margin: float | None = None
    source: str = ""
    reason: str = ""

    @property
    def title(self) -> str:
        """What people call the figure."""
        return _UNITS[self.figure].title

    @property
    def measured(self) -> str:
        """The figure with its unit, deviation and number of seeds; empty where it is missing."""
        if self.value is None:
            return ""
        unit, digits = _UNITS[self.figure], self._digits()
        text = unit.show(self.value, digits)
        if self.worst_seed is not None:
            return f"{text} (seed {self.worst_seed}, worst of {self.seeds})"
        if self.deviation is None:
            return text
        spread = unit.show(self.deviation, digits)
        # For an accuracy no deviation is a finding, for a size it goes without saying.
        if self.figure == "accuracy" or spread != unit.show(0, digits):
            text = f"{text.removesuffix(unit.suffix) if ' ' in unit.suffix else text} ± {spread}"
        return f"{text} ({self.seeds} seeds)"

    @property
    def asked(self) -> str:
        """The limit as the rule gives it: the same text whatever was measured."""
        return self._asked(_UNITS[self.figure].exact(self.given))

    @property
    def needed(self) -> str:
        """The limit with as many digits as the figure, and what it comes to if it is relative."""
        unit, digits = _UNITS[self.figure], self._digits()
        if self.reference is None or self.bound is None:
            return self._asked(max(digits, unit.exact(self.given)))
        return f"{self.asked} = {unit.show(self.bound, digits)}"

    @property
    def room(self) -> str:
        """The margin with its sign and unit; empty where the figure is missing."""
        if self.margin is None:
            return ""
        sign = "-" if self.margin < 0 else "+" if self.margin > 0 else ""
        return sign + _UNITS[self.figure].show_difference(abs(self.margin), self._digits())

    @property
    def told(self) -> str:
        """All of it in one line."""
        who = f"rule #{self.rule}: "
        if self.verdict == "missing":
            return who + self.reason
        line = f"{who}{self.variant} {self.artifact}: {self.title} {self.measured}"
        if self.verdict == "kept":
            return f"{line}, {self.needed} is asked ({self.source})"
        much = "little" if self.limit in ("min", "max_drop", "min_ratio") else "much"
        return (
            f"{line}, but {self.needed} is asked: {self.room.removeprefix('-')} too {much} "
            f"({self.source})"
        )

    def document(self) -> dict[str, Any]:
        """Plain values for JSON, with the line a person reads."""
        return {**dataclasses.asdict(self), "told": self.told}

    def _asked(self, digits: int) -> str:
        unit, least = _UNITS[self.figure], "at least" if self.limit.startswith("min") else "at most"
        than = self.against or "the baseline"
        if self.limit in ("min", "max"):
            return f"{least} {unit.show(self.given, digits)}"
        if self.limit.endswith("_ratio"):
            return f"{least} {self.given:g} times {than}"
        way = "below" if self.limit == "max_drop" else "above"
        return f"{least} {unit.show_difference(self.given, digits)} {way} {than}"

    def _digits(self) -> int:
        unit = _UNITS[self.figure]
        if self.value is None or self.bound is None:
            return unit.digits
        return unit.apart(self.value, self.bound)
