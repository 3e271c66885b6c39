"""From the short forms of a pipeline file to the steps and chains that they stand for.

The functions work on plain tables, before these are checked: a mistake in a short form is told by
the same checks as one in the long form.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tfprune.errors import UsageError, did_you_mean
from tfprune.pipeline.steps import KINDS
from tfprune.pipeline.steps.training import TrainingStep

Raw = dict[str, Any]

MOST_ROUNDS = 10_000
MOST_VARIANTS = 10_000
_SHOWN = 200


@dataclass(frozen=True, eq=False)
class Chain(Sequence[str]):
    """The names of a variant's steps: `start`, then `times` times `repeat`, then `end`.

    A list of thousands of rounds would hold all rounds before each of them, which is quadratic.

    Attributes:
        start: the first steps; all of them, where nothing repeats.
        repeat: what repeats.
        times: how often.
        end: the last steps.
    """

    start: tuple[str, ...] = ()
    repeat: tuple[str, ...] = ()
    times: int = 0
    end: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start) + len(self.repeat) * self.times + len(self.end)

    def __iter__(self) -> Iterator[str]:
        repeated = itertools.repeat(self.repeat, self.times)
        return itertools.chain(self.start, itertools.chain.from_iterable(repeated), self.end)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, int) and -len(self.end) <= place < 0:
            return self.end[place]
        return list(self)[place]

    def __contains__(self, step: object) -> bool:
        return step in self.parts

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Chain) and self._key == other._key:
            return True
        return isinstance(other, Chain | list | tuple) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.start, self.repeat, self.times, self.end

    @property
    def parts(self) -> frozenset[str]:
        """The steps, each once."""
        repeated = self.repeat if self.times else ()
        return frozenset((*self.start, *repeated, *self.end))

    @property
    def last(self) -> str | None:
        """The last step; None where there is none."""
        for part in (self.end, self.repeat if self.times else (), self.start):
            if part:
                return part[-1]
        return None

    def without_last(self) -> Chain:
        """The chain without its last step."""
        if self.end:
            return Chain(self.start, self.repeat, self.times, self.end[:-1])
        if self.repeat and self.times:
            return Chain(self.start, self.repeat, self.times - 1, self.repeat[:-1])
        return Chain(self.start[:-1])

    def map(self, names: Mapping[str, str]) -> Chain:
        """The chain with other names for some of its steps."""
        start, repeat, end = (
            tuple(names.get(step, step) for step in part)
            for part in (self.start, self.repeat, self.end)
        )
        return Chain(start, repeat, self.times, end)

    def short(self) -> Chain:
        """A chain in which the same steps follow each other, and nothing comes more than twice.

        What holds of the order of its steps holds of this one's: a step of the third round has
        the same steps before it as one of the second.
        """
        return Chain(self.start, self.repeat, min(self.times, 2), self.end)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        lists = handler.generate_schema(list[str])

        def validated(value: Any, inner: Callable[[Any], list[str]]) -> Chain:
            return value if isinstance(value, Chain) else Chain(tuple(inner(value)))

        return core_schema.no_info_wrap_validator_function(
            validated,
            lists,
            serialization=core_schema.plain_serializer_function_ser_schema(list),
        )


def override(raw: Raw, settings: Sequence[str], tables: Sequence[str]) -> Raw:
    """Replaces some values of a pipeline.

    Args:
        raw: what the file says.
        settings: `KEY=VALUE` each, as of `--set`. KEY is a path from the top of the file
            (`data.limit`), from a step (`dense.epochs`, short for `steps.dense.epochs`), or from
            a kind of step, for all of that kind (`train.epochs`). VALUE is TOML; a word needs no
            quotes.
        tables: the keys that stand at the top of a pipeline file.

    Returns:
        A new table.

    Raises:
        UsageError: a setting is of another form, or its key begins with nothing of the file.
    """
    raw = copy.deepcopy(raw)
    for whole in settings:
        key, equals, text = whole.partition("=")
        setting = whole if len(whole) <= _SHOWN else f"{whole[: _SHOWN - 3]}..."
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path):
            raise UsageError(f"--set {setting}: write KEY=VALUE, such as train.epochs=3")
        value = _value(text.strip())
        for full in _places(raw, path, tables, setting):
            table = raw
            for part in full[:-1]:
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    raise UsageError(f"--set {setting}: {part} is a value, it has nothing in it")
            table[full[-1]] = value
    return raw


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    # A number of too many digits is no TOML error, and neither are brackets without end.
    except (ValueError, RecursionError):
        return text


def _places(raw: Raw, path: list[str], tables: Sequence[str], setting: str) -> Iterator[list[str]]:
    steps = raw.get("steps")
    steps = steps if isinstance(steps, dict) else {}
    kinds = {name: step.get("kind") for name, step in steps.items() if isinstance(step, dict)}
    if path[0] in tables:
        yield path
    elif path[0] in steps:
        yield ["steps", *path]
    elif path[0] in kinds.values():
        yield from (["steps", name, *path[1:]] for name, kind in kinds.items() if kind == path[0])
    else:
        known = [*steps, *dict.fromkeys(map(str, kinds.values())), *tables]
        raise UsageError(
            f"--set {setting}: {path[0]} is no step, kind of step or table of the pipeline: "
            + did_you_mean(path[0], known)
        )


def with_training(raw: Raw) -> Raw:
    """Gives every step that trains what `[training]` says and the step does not.

    A step that does not train, and yet looks at augmented images, takes their augmentation.
    """
    common, steps = raw.get("training", {}), raw.get("steps")
    if not isinstance(common, dict) or not isinstance(steps, dict):
        return raw
    augment = {key: value for key, value in common.items() if key == "augment"}
    shared = {
        kind: common if issubclass(table, TrainingStep) else augment
        for kind, table in KINDS.items()
        if "augment" in table.model_fields
    }
    given = {
        name: {**shared.get(str(step.get("kind")), {}), **step} if isinstance(step, dict) else step
        for name, step in steps.items()
    }
    return {**raw, "steps": given}


def with_rounds(raw: Raw) -> Raw:
    """Turns `[rounds.NAME]` into the variants NAME-1 to NAME-times.

    Raises:
        ValueError: there would be too many, or one would take another variant's name.
    """
    rounds, variants = raw.get("rounds", {}), raw.get("variants", {})
    if not isinstance(rounds, dict) or not isinstance(variants, dict):
        return raw
    added: dict[str, Chain] = {}
    for name, spec in rounds.items():
        times = spec.get("times") if isinstance(spec, dict) else None
        if not isinstance(times, int):
            continue
        if times > MOST_ROUNDS:
            raise ValueError(f"rounds.{name}.times must be at most {MOST_ROUNDS:,}")
        parts = [_steps_of(spec.get(part, [])) for part in ("start", "repeat", "end")]
        # Whatever is wrong with a part is told where the tables are checked.
        if (start := parts[0]) is None or (repeat := parts[1]) is None or (end := parts[2]) is None:
            continue
        for count in range(1, times + 1):
            if (variant := f"{name}-{count}") in variants or variant in added:
                raise ValueError(f"rounds.{name} makes a second variant {variant}: rename one")
            added[variant] = Chain(start, repeat, count, end)
        _limited(len(added))
    return {**raw, "variants": {**variants, **added}} if added else raw


def _steps_of(part: Any) -> tuple[str, ...] | None:
    """A list of steps' names; None where it is something else."""
    named = isinstance(part, list | tuple) and all(isinstance(step, str) for step in part)
    return tuple(part) if named else None


def _limited(variants: int) -> None:
    if variants > MOST_VARIANTS:
        raise ValueError(
            f"rounds and sweep make more than {MOST_VARIANTS:,} variants: ask for fewer"
        )


def with_sweep(raw: Raw) -> Raw:
    """Turns every variant with a swept step into one for each combination of values.

    `[sweep]` holds lists of values by step and parameter. A swept variant's and step's names gain
    "-PARAMETER-VALUE".

    Raises:
        ValueError: there would be too many variants, two of one name, or none for a step.
    """
    sweep, steps, variants = (raw.get(key, {}) for key in ("sweep", "steps", "variants"))
    if not all(isinstance(each, dict) for each in (sweep, steps, variants)):
        return raw
    choices = {
        step: _choices(step, values)
        for step, values in sweep.items()
        if isinstance(values, dict) and isinstance(steps.get(step), dict)
    }
    if not choices:
        return raw
    chains = {variant: _as_chain(chain) for variant, chain in variants.items()}
    swept = {
        variant: [step for step in choices if chain is not None and step in chain]
        for variant, chain in chains.items()
    }
    for step in choices:
        if not any(step in each for each in swept.values()):
            raise ValueError(f"sweep.{step} is of a step that no variant has: leave it out")
    _limited(sum(math.prod(len(choices[step]) for step in each) for each in swept.values()))
    expanded_steps = {name: step for name, step in steps.items() if name not in choices}
    for step, options in choices.items():
        for suffix, values in options:
            _added(expanded_steps, step + suffix, {**steps[step], **values}, f"sweep.{step}")
    expanded: dict[str, Any] = {}
    for variant, chain in chains.items():
        if chain is None or not swept[variant]:
            _added(expanded, variant, variants[variant], "sweep")
            continue
        for combination in itertools.product(*(choices[step] for step in swept[variant])):
            suffixes = {
                step: suffix for step, (suffix, _) in zip(swept[variant], combination, strict=True)
            }
            renamed = chain.map({step: step + suffix for step, suffix in suffixes.items()})
            _added(expanded, variant + "".join(suffixes.values()), renamed, "sweep")
    return {**raw, "steps": expanded_steps, "variants": expanded, "sweep": {}}


def _as_chain(chain: Any) -> Chain | None:
    if isinstance(chain, Chain):
        return chain
    steps = _steps_of(chain)
    return None if steps is None else Chain(steps)


def _added(table: Raw, name: str, value: Any, whose: str) -> None:
    if name in table:
        raise ValueError(f"{whose} makes {name} twice: give values that differ in their letters")
    table[name] = value


def _choices(step: str, values: Mapping[str, Any]) -> list[tuple[str, Raw]]:
    """The suffix and the parameters of each combination."""
    lists = [each if isinstance(each, list) else [each] for each in values.values()]
    for name, each in zip(values, lists, strict=True):
        if not each:
            raise ValueError(f"sweep.{step}.{name} is empty: give it values")
    _limited(math.prod(len(each) for each in lists))
    combinations = [dict(zip(values, row, strict=True)) for row in itertools.product(*lists)]
    return [
        ("".join(f"-{name}-{_word(value)}" for name, value in chosen.items()), chosen)
        for chosen in combinations
    ]


def _word(value: Any) -> str:
    """A value as a part of a name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-")
