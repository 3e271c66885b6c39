"""What a trial is, the chain of steps that it means, and which trials are better.

Pure: it loads no Keras and reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from tfprune.errors import UsageError
from tfprune.files import document_hash
from tfprune.pipeline.spec import Pipeline
from tfprune.searching.spec import Search
from tfprune.training import Training
from tfprune.validation import describe_error
from tfprune.vocabulary import FormatName

_TARGETS = {
    "macs": "MACs",
    "params": "parameters",
    "cycles": "cycles",
    "latency": "latency",
    "sram": "on-chip memory",
    "flash": "storage",
}
DENSE = "dense"
WINNER = "winner"


@dataclass(frozen=True)
class Choice:
    """What a trial does to the dense model.

    Attributes:
        format: of its file.
        keep: the share of `target` that stays; 1 removes no filter.
        target: what `keep` is a share of, see `Space`.
        importance: how filters are ranked.
        round_to: the multiple that layers shrink to.
        zeros: the share of the weights that become zero.
        bits: of the weights of each output channel; 0 for all values.
        structure: "planned" or "learnt", see `Space`.
        whole: whether the recovery is one training, and not one for each rung.
    """

    format: FormatName
    keep: float = 1.0
    target: str = "macs"
    importance: str = "l2"
    round_to: int = 1
    zeros: float = 0.0
    bits: int = 0
    structure: str = "planned"
    whole: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is removed, so that training on has something to recover."""
        return self.keep < 1 or self.zeros > 0

    @property
    def macs_kept(self) -> float:
        """The share of the MACs that is left, about; for forecasts."""
        return self.keep

    def describe(self, trained: bool = True) -> str:
        """The choices in a few words.

        Args:
            trained: whether a part of the recovery was trained; without it nothing is learnt.
        """
        parts = []
        if self.keep < 1:
            is_learnt = trained and self.structure == "learnt"
            how = "learnt" if is_learnt else f"by {self.importance}"
            parts.append(f"{self.keep:.0%} of the {_TARGETS[self.target]}, {how}")
        if self.zeros:
            parts.append(f"{self.zeros:.0%} zeros")
        if self.bits:
            parts.append(f"{2**self.bits - 1} values")
        if self.whole:
            parts.append("recovered at one go")
        return ", ".join([*(parts or ["dense"]), self.format])

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


Steps = dict[str, dict[str, Any]]


def dense_chain(search: Search) -> tuple[Steps, list[str]]:
    """The steps of the dense model; none where it is trained already."""
    if search.epochs is None:
        return {}, []
    return {DENSE: {"kind": "train", "epochs": search.epochs}}, [DENSE]


def chain(search: Search, choice: Choice, rung: int) -> tuple[Steps, list[str]]:
    """The steps of a trial at a rung, by name, and their order.

    A rung goes on where the rung before ended, so what it has in common with it is done once.

    Args:
        search: what is searched.
        choice: what the trial does.
        rung: how many parts of the recovery it trains; 0 for none.
    """
    steps, order = dense_chain(search)

    def add(name: str, step: dict[str, Any]) -> None:
        steps[name] = step
        order.append(name)

    parts = search.segments[:rung]
    # A warm-up is for weights that are not trained yet.
    rate = {
        "learning_rate": search.recovery_rate * _learning_rate(search),
        "warmup_epochs": 0.0,
    }
    if choice.keep < 1:
        share, suffix = _share(search, choice)
        if choice.structure == "learnt" and parts:
            # Without training there is nothing to learn: a plan stands for it at the first rung.
            learning = {"kind": "learn", "epochs": parts[0], **share, **rate}
            add(f"learn-{suffix}-{parts[0]}", learning)
            parts = parts[1:]
            add("slim-dead", {"kind": "slim", "dead": True})
        else:
            add(
                f"slim-{suffix}-{choice.importance}",
                {"kind": "slim", "importance": choice.importance, **share},
            )
    if choice.changes:
        if choice.whole and parts:
            parts = (sum(parts),)
        zeros = {"scope": "global"}
        if choice.zeros and not parts:
            add(f"cut-{choice.zeros:g}", {"kind": "prune-once", "share": choice.zeros, **zeros})
        for number, epochs in enumerate(parts):
            again = {"epochs": epochs, **rate}
            if number:
                step = {"kind": "retrain", "rewind": "finetune", **again}
                add(f"again-{number}-{epochs}", step)
            elif choice.zeros:
                step = {"kind": "prune", "sparsity": choice.zeros, **zeros, **again}
                add(f"sparse-{choice.zeros:g}-{epochs}", step)
            else:
                add(f"recover-{epochs}", {"kind": "train", **again})
    if choice.bits:
        add(f"round-{choice.bits}", {"kind": "quantize-weights", "bits": choice.bits})
    add(f"as-{choice.format}", {"kind": "export", "formats": [choice.format]})
    return steps, order


def _share(search: Search, choice: Choice) -> tuple[dict[str, Any], str]:
    """What a step that removes filters is told of its target, and the same in a name."""
    share: dict[str, Any] = {choice.target: choice.keep}
    suffix = f"{choice.target}-{choice.keep:g}"
    if choice.round_to > 1:
        share["round_to"] = choice.round_to
        suffix += f"-x{choice.round_to}"
    if choice.target not in ("macs", "params"):
        if search.device.find().planned:
            share["device"] = search.device.name
            if options := search.device.model_extra:
                share["device_options"] = options
        else:
            share["format"] = choice.format
            suffix += f"-{choice.format}"
    return share, suffix


def _learning_rate(search: Search) -> float:
    """That of the dense training: the search's own, or the default."""
    given = search.training.model_dump()["learning_rate"]
    default: float = Training.model_fields["learning_rate"].default
    return default if given is None else float(given)


def variant_name(search: Search, choice: Choice, rung: int) -> str:
    """The name of a trial's variant: trials that mean the same have the same name."""
    steps, order = chain(search, choice, rung)
    return "t" + document_hash([steps[name] for name in order])[:12]


def pipeline_of(
    search: Search, trials: Mapping[str, tuple[Choice, int]], *, devices: Iterable[Any] = ()
) -> Pipeline:
    """The pipeline of the dense model and some trials.

    Args:
        search: what is searched.
        trials: choices and rungs, by the names that their variants get.
        devices: tables of devices that artifacts are measured on.

    Raises:
        UsageError: a pipeline with these trials is not valid.
    """
    try:
        return Pipeline.model_validate(document_of(search, trials, devices=devices))
    except ValidationError as error:
        raise UsageError(describe_error(error, Pipeline)) from error


def document_of(
    search: Search, trials: Mapping[str, tuple[Choice, int]], *, devices: Iterable[Any] = ()
) -> dict[str, Any]:
    """The same as the document of a pipeline file, without what has its default value."""
    steps, order = dense_chain(search)
    variants = {DENSE: order}
    for name, (choice, rung) in trials.items():
        own, variants[name] = chain(search, choice, rung)
        steps |= own
    forms = dict.fromkeys(["keras", search.formats[0]])
    document: dict[str, Any] = {
        "name": search.name,
        "seeds": [search.seed],
        "formats": list(forms),
        "data": search.data.model_dump(mode="json", exclude_defaults=True),
        "model": search.model.model_dump(mode="json", exclude_defaults=True),
        "training": search.training.model_dump(mode="json", exclude_none=True),
        "steps": steps,
        "variants": variants,
    }
    if search.task is not None:
        document["task"] = search.task.model_dump(mode="json", exclude_defaults=True)
    if found := list(devices):
        document["devices"] = found
    return {key: value for key, value in document.items() if value != {}}


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

    def describe(self) -> str:
        """What it did, in a few words."""
        return self.choice.describe(trained=self.rung > 0)

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
    """Trials by fronts: those that no other one beats, then those that only these beat, and so on.

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
