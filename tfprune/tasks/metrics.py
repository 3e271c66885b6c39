"""The metrics that are known: how each is written, and which way is better. Free of Keras."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfprune.figures import Direction, Figure, Number


@dataclass(frozen=True)
class Metric:
    """One metric of Keras.

    Attributes:
        name: what a history, a record and a budget call it.
        title: what tables and sentences call it.
        better: which way is better.
        meaning: what it is, in one plain phrase.
        unit: "%" for a share of 0 to 1; else what stands behind the number, with its space.
        digits: decimals.
        classes: the names of the class and of the functions in `keras.metrics`.
    """

    name: str
    title: str
    better: Direction
    meaning: str
    unit: str = ""
    digits: int = 3
    classes: tuple[str, ...] = ()

    def figure(self) -> Figure:
        """The metric as the figure that artifacts are compared by."""
        number = Number(self.unit, self.digits, flags="")
        return Figure(self.name, self.title, number, "artifact", self.meaning, self.better)


_RIGHT = "share of the test examples that the artifact itself gets right"
METRICS = (Metric("accuracy", "accuracy", "higher", _RIGHT, "%", 2, ("Accuracy", "acc")),)
"""One row for each metric. A metric that is not here needs `better` in the task."""


def metric(name: str) -> Metric | None:
    """The row of a metric, by its name or by a name that Keras gives it; None if there is none.

    Example:
        ```python
        metric("accuracy").better  # "higher"
        ```
    """
    wanted = _plain(name)
    rows = (row for row in METRICS if wanted in map(_plain, (row.name, *row.classes)))
    return next(rows, None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
