"""Which trials are better: fronts, the halving of a bracket, and the winner. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfprune.searching.variants import Choice


@dataclass(frozen=True)
class Tried:
    """What a trial gave on validation data.

    Attributes:
        choice: what it did to the dense model.
        rung: how many parts of the recovery it trained.
        epochs: that it trained beyond the dense model.
        variant: its folder within `trials`.
        value: the compared figure of its file.
        drop: how much worse than the dense model that is: in points where the figure is a share,
            else in its own unit; negative where it is better.
        ratio: its cost, divided by the dense model's.
        costs: all its costs, by the names of their figures.
        refusal: why the device does not run the file; empty where it does.
    """

    choice: Choice
    rung: int
    epochs: int
    variant: str
    value: float
    drop: float
    ratio: float
    costs: Mapping[str, float] = field(default_factory=dict)
    refusal: str = ""

    def keeps(self, max_drop: float) -> bool:
        """Whether it runs, and is no worse than the dense model by more than that."""
        return not self.refusal and self.drop <= max_drop + 1e-9

    def to_dict(self) -> dict[str, Any]:
        """What is recorded."""
        return {
            "variant": self.variant,
            **self.choice.to_dict(),
            "epochs": self.epochs,
            "value": self.value,
            "drop": self.drop,
            "ratio": self.ratio,
            "costs": dict(self.costs),
            "refusal": self.refusal,
        }


def front(tried: Iterable[Tried], cost: Callable[[Tried], float | None]) -> list[Tried]:
    """The trials that no other one beats in both drop and cost, the cheapest first.

    Example:
        >>> front(found.tried, lambda each: each.costs.get("macs"))

    Args:
        tried: trials; one that the device refuses is left out.
        cost: what a trial costs; one that gives None is left out.
    """
    priced = [
        (price, each.drop, place, each)
        for place, each in enumerate(tried)
        if not each.refusal and (price := cost(each)) is not None
    ]
    found: list[Tried] = []
    least = float("inf")
    for _, drop, _, each in sorted(priced, key=lambda row: row[:3]):
        if drop < least:
            found.append(each)
            least = drop
    return found


def ranked(tried: Sequence[Tried]) -> list[Tried]:
    """Trials by fronts: those that nobody beats, then those that only these beat, and so on.

    Within a front, those that lie farther from others come first (Deb et al. 2002, NSGA-II), so
    that the halving of a bracket keeps cheap trials, which need more training, and good ones.
    """
    left = list(tried)
    order: list[Tried] = []
    while left:
        best = front(left, lambda each: each.ratio)
        if not best:
            return order + left
        order += _apart(best)
        taken = {id(each) for each in best}
        left = [each for each in left if id(each) not in taken]
    return order


def _apart(line: list[Tried]) -> list[Tried]:
    """A front, its ends first, then what has most room around it."""
    if len(line) < 3:
        return line
    wide = (line[-1].ratio - line[0].ratio) or 1.0
    high = (line[0].drop - line[-1].drop) or 1.0
    room = {0: float("inf"), len(line) - 1: float("inf")}
    for place in range(1, len(line) - 1):
        before, after = line[place - 1], line[place + 1]
        room[place] = (after.ratio - before.ratio) / wide + (before.drop - after.drop) / high
    return [line[place] for place in sorted(room, key=lambda each: (-room[each], each))]


def halved(tried: Sequence[Tried], max_drop: float) -> list[Tried]:
    """The half of a bracket that goes on: the best by fronts, without those that cannot win.

    A trial that costs as much as another one that already keeps the budget, or more, cannot win by
    more training.
    """
    keeping = [each.ratio for each in tried if each.keeps(max_drop)]
    least = min(keeping, default=float("inf"))
    hopeful = [
        each for each in tried if each.choice.changes and not each.refusal and (each.ratio <= least)
    ]
    return ranked(hopeful)[: max(1, len(tried) // 2)]


def winner(tried: Sequence[Tried], max_drop: float) -> Tried:
    """The cheapest trial that keeps the budget; the nearest one where none does.

    Args:
        tried: at least one that the device runs.
        max_drop: how much worse than the dense model it may be.
    """
    running = [each for each in tried if not each.refusal]
    keeping = [each for each in running if each.keeps(max_drop)]
    if keeping:
        return min(keeping, key=lambda each: (each.ratio, each.drop))
    return min(running, key=lambda each: (each.drop, each.ratio))


def nearest(tried: Sequence[Tried], max_drop: float, max_ratio: float) -> Tried | None:
    """Of the trials that are cheap enough, the one that loses least; None where none is."""
    cheap = [
        each
        for each in tried
        if not each.refusal and each.ratio <= max_ratio and not each.keeps(max_drop)
    ]
    return min(cheap, key=lambda each: (each.drop, each.ratio), default=None)
